"""Whether the processes of a cluster fit: the folder they see, their version, their kernels."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf

from lfm4ads_tf._version import __version__
from lfm4ads_tf.cluster.host_functions import call
from lfm4ads_tf.cluster.task import Task
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.kernels.library import library

SEEN = "seen"
"""Name of `seen` among the host functions."""


def seen(path: bytes) -> bytes:
    """What a process answers: its host, version, kernels, and whether it sees a file, as JSON."""
    return json.dumps(
        {
            "host": socket.gethostname(),
            "version": __version__,
            "kernels": library() is not None,
            "seen": Path(path.decode()).exists(),
        }
    ).encode()


def require_shared(folder: Path, devices: Mapping[Task, str]) -> None:
    """Refuses a cluster whose processes do not fit the chief, or whose workers not the folder.

    Args:
        folder: The folder; a file is made in it for as long as the others are asked.
        devices: Worker or parameter server -> its device. Workers must see the folder.

    Raises:
        UserError: A process is of another version or has no compiled kernels where the chief has
            them, or a worker does not see the folder; it is named.
    """
    kernels = library() is not None
    probe = folder.resolve() / f".seen-{uuid.uuid4().hex}"
    probe.touch()
    try:
        for task, device in devices.items():
            answer = json.loads(_asked(str(probe), device))
            if answer["version"] != __version__:
                raise UserError(
                    f"{task} on {answer['host']} runs another version of lfm4ads_tf.",
                    received=f"{answer['version']}, the chief {__version__}",
                    fix="install one version everywhere",
                )
            if kernels and not answer["kernels"]:  # it would not know the ops that it is sent
                raise UserError(
                    f"{task} on {answer['host']} has no compiled kernels, and the chief has them.",
                    received="no library, or LFM4ADS_KERNELS=0",
                    fix="build them everywhere, or set LFM4ADS_KERNELS=0 in all processes",
                )
            if task.job == "worker" and not answer["seen"]:
                raise UserError(
                    f"{task} on {answer['host']} does not see the chief's folder.",
                    received=str(folder.resolve()),
                    fix="give --out a folder that chief and workers share, at the same path",
                )
    finally:
        probe.unlink()


def _asked(path: str, device: str) -> bytes:
    @tf.function(autograph=False)
    def ask(path: tf.Tensor) -> tf.Tensor:
        return call(SEEN, [path], [tf.string], stateful=True)[0]

    with tf.device(device):
        answer: bytes = ask(tf.constant(path)).numpy()
    return answer
