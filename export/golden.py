"""Golden requests: real rows with the scores that the evaluation gave them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

GOLDEN_FILE = Path("assets.extra") / "golden.npz"
"""Inside a version folder. Keys: `requests/<signature>/<input>` holds a serialized TensorProto as
bytes, `expected/<signature>/<output>` the expected output, `allowed/<signature>/<output>` what its
numbers may differ, see `verify_child.allowed_difference`."""


@dataclass(frozen=True)
class GoldenRequest:
    """One request to a signature.

    Attributes:
        signature: The signature.
        inputs: Input -> array; texts are objects of type bytes.
        expected: Output -> array of float32, int64, or texts.
        allowed: Output -> what its numbers may differ, of the shape of the output; for outputs that
            are numbers.
    """

    signature: str
    inputs: Mapping[str, np.ndarray]
    expected: Mapping[str, np.ndarray]
    allowed: Mapping[str, np.ndarray]


def write_golden(folder: Path, requests: Sequence[GoldenRequest]) -> None:
    """Writes golden requests, one per signature.

    Args:
        folder: The version folder.
        requests: The requests.
    """
    arrays: dict[str, Any] = {}
    for request in requests:
        for name, values in request.inputs.items():
            proto = tf.make_tensor_proto(values, tf.string if values.dtype == object else None)
            key = f"requests/{request.signature}/{name}"
            arrays[key] = np.frombuffer(proto.SerializeToString(), np.uint8)
        for name, values in request.expected.items():
            held = np.asarray(values)
            if held.dtype == object:  # texts as fixed-length bytes: objects would be pickled
                held = np.array([_bytes(t) for t in held.ravel()], "S").reshape(held.shape)
            arrays[f"expected/{request.signature}/{name}"] = held
        for name, values in request.allowed.items():
            arrays[f"allowed/{request.signature}/{name}"] = np.asarray(values, np.float32)
    path = folder / GOLDEN_FILE
    path.parent.mkdir(exist_ok=True)
    # as `numpy.savez_compressed`, which spends most of its time on digits that hardly shrink
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for key, held in arrays.items():
            with archive.open(f"{key}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(held), allow_pickle=False)


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text
