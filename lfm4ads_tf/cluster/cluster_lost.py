"""The error of a cluster that lacks a process."""

from __future__ import annotations


class ClusterLost(Exception):
    """A server, or whatever a step waited for, did not answer: the same command may be tried again.

    `train.py` prints it and exits with 75. What was trained since the last checkpoint is lost.

    Args:
        what: What is lost, one sentence.
        received: What was found, shown as `Received: ...`; of TensorFlow's error the first line.
    """

    def __init__(self, what: str, received: object) -> None:
        fix = "start the servers and the chief again; training goes on from its last checkpoint"
        super().__init__(f"{what}\nReceived: {_first_line(received)}\nFix: {fix}")


def _first_line(received: object) -> str:
    return str(received).strip().partition("\n")[0][:300]
