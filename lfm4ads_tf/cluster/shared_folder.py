"""Whether the workers of a cluster see the folder that the chief writes to."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf

from lfm4ads_tf._version import __version__
from lfm4ads_tf.cluster.host_functions import call
from lfm4ads_tf.errors import UserError

SEEN = "seen"
"""Name of `seen` among the host functions."""


def seen(path: bytes) -> bytes:
    """What a worker answers: its host, version, and whether it sees a file, as JSON."""
    return json.dumps(
        {
            "host": socket.gethostname(),
            "version": __version__,
            "seen": Path(path.decode()).exists(),
        }
    ).encode()


def require_shared(folder: Path, devices: Mapping[str, str]) -> None:
    """Refuses a cluster whose workers are of another version or do not see a folder.

    Args:
        folder: The folder; a file is made in it for as long as the workers are asked.
        devices: Worker -> its device.

    Raises:
        UserError: There is such a worker; it is named.
    """
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
            if not answer["seen"]:
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
