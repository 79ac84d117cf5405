"""Loads one SavedModel with TensorFlow and NumPy alone, and proves it. Run by `export.verify`.

This file is started by its path in a process of its own and imports nothing of this project: what
it can load and run, a server without our code can load and run.

    python verify_child.py VERSION_FOLDER WARMUP_JSON REPORT_JSON
"""

from __future__ import annotations

import base64
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # Importing one of these fails from here on: what is loaded below needs none of them.
    # (TensorFlow imports Keras only to offer it as `tf.keras`, and does without.)
    for package in ("lfm4ads_tf", "export", "tf_keras", "keras", "tensorflow_serving"):
        sys.modules[package] = None  # type: ignore[assignment]

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from tensorflow.core.framework import tensor_pb2  # noqa: E402
from tensorflow.core.protobuf import saved_model_pb2  # noqa: E402
from tensorflow.python.framework import op_def_registry  # noqa: E402

SIGNATURES = ("serving_default", "predict")
TOLERANCE = 1e-6
# Registered in every build, but their kernels call back into the Python process that made them.
PYTHON_OPS = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}
LATENCY_CALLS = 20


class Refused(Exception):
    """The export must not be published; the message says why."""


Tensors = dict[str, tf.Tensor]


def read_golden(folder: Path) -> tuple[dict[str, Tensors], dict[str, np.ndarray]]:
    """Requests per signature, and the Keras model's scores per output."""
    path = folder / "assets.extra" / "golden.npz"
    if not path.exists():
        raise Refused("there is no golden file (assets.extra/golden.npz) to compare with")
    requests: dict[str, Tensors] = {name: {} for name in SIGNATURES}
    scores: dict[str, np.ndarray] = {}
    try:
        with np.load(path) as arrays:
            for key in arrays.files:
                kind, _, name = key.partition("/")
                if kind == "scores":
                    scores[name] = arrays[key]
                else:
                    requests[kind][name] = tensor_of(arrays[key].tobytes())
    except Exception as error:
        raise Refused(f"the golden file cannot be read ({_first_line(error)})") from error
    if not scores or not all(requests.values()) or not all(len(s) for s in scores.values()):
        raise Refused("the golden file holds no requests or no scores")
    return requests, scores


def tensor_of(serialized: bytes) -> tf.Tensor:
    """A serialized TensorProto as a tensor."""
    proto = tensor_pb2.TensorProto.FromString(serialized)
    return tf.constant(tf.make_ndarray(proto), tf.as_dtype(proto.dtype))


def check_graph(folder: Path) -> None:
    """Both signatures are there, and every op is one of TensorFlow's own."""
    path = folder / "saved_model.pb"
    if not path.exists():
        raise Refused("cannot be loaded: there is no saved_model.pb")
    try:
        graphs = saved_model_pb2.SavedModel.FromString(path.read_bytes()).meta_graphs
    except Exception as error:
        raise Refused(
            f"cannot be loaded: saved_model.pb is damaged ({_first_line(error)})"
        ) from error
    serving = [g for g in graphs if "serve" in g.meta_info_def.tags]
    if not serving:
        raise Refused("cannot be loaded: saved_model.pb has no graph tagged `serve`")
    for name in SIGNATURES:
        if name not in serving[0].signature_def:
            raise Refused(f"the signature '{name}' is missing")
    library = serving[0].graph_def.library.function
    functions = {function.signature.name for function in library}
    nodes = [*serving[0].graph_def.node, *(n for f in library for n in f.node_def)]
    ops = {node.op for node in nodes} - functions
    foreign = sorted(op for op in ops if op in PYTHON_OPS or op_def_registry.get(op) is None)
    if foreign:
        raise Refused(f"ops that a stock server does not have: {', '.join(foreign)}")


def load(folder: Path) -> Any:
    """Loads the SavedModel."""
    try:
        return tf.saved_model.load(str(folder))
    except Exception as error:
        raise Refused(f"cannot be loaded: {_first_line(error)}") from error


def run(model: Any, signature: str, inputs: Tensors, what: str) -> dict[str, np.ndarray]:
    """Runs a request; its outputs must be finite."""
    try:
        outputs = {k: v.numpy() for k, v in model.signatures[signature](**inputs).items()}
    except Exception as error:
        raise Refused(f"{what} fails on '{signature}': {_first_line(error)}") from error
    for name, values in outputs.items():
        if values.dtype == object:  # text
            continue
        sound = np.isfinite(values) | is_padding(values, outputs)
        bad = np.flatnonzero(~sound.reshape(len(values), -1).all(axis=1))
        if len(bad):
            raise Refused(
                f"{what} gives {_kind_of(values[bad[0]])} as '{name}' on '{signature}', first in "
                f"row {bad[0]} of {len(values)}"
            )
    return outputs


def is_padding(values: np.ndarray, outputs: dict[str, np.ndarray]) -> np.ndarray:
    """Where a retrieval has no more items: -inf beside an empty key in `ids`."""
    keys = outputs.get("ids")
    if keys is None or keys.shape != values.shape:
        return np.zeros(values.shape, bool)
    return np.isneginf(values) & (keys.astype("S") == b"")


def compare(signature: str, outputs: dict[str, np.ndarray], scores: dict[str, np.ndarray]) -> float:
    """Largest difference to the Keras model, relative to the score where that is above 1."""
    if outputs.keys() != scores.keys():
        raise Refused(
            f"'{signature}' has the outputs {sorted(outputs)}, not {sorted(scores)} as expected"
        )
    largest = 0.0
    for name, values in outputs.items():
        expected = scores[name]
        if expected.dtype.kind == "S":
            compare_texts(name, signature, values, expected, outputs, scores)
            continue
        if values.shape != expected.shape or values.dtype != np.float32:
            raise Refused(
                f"'{name}' of '{signature}' is {values.dtype} {values.shape}, expected float32 "
                f"{expected.shape}"
            )
        padded = is_padding(values, outputs) & np.isneginf(expected)
        expected = np.where(padded, 0.0, expected)
        difference = np.abs(np.where(padded, 0.0, values.astype(np.float64)) - expected)
        difference /= np.maximum(1.0, np.abs(expected))
        largest = max(largest, float(difference.max()))
        if not largest <= TOLERANCE:
            row = int(np.argmax(difference.reshape(len(difference), -1).max(axis=1)))
            raise Refused(
                f"the scores differ from the Keras model's: '{name}' on '{signature}' by "
                f"{difference.max():.3g} in row {row} (allowed {TOLERANCE:g})"
            )
    return largest


def compare_texts(
    name: str,
    signature: str,
    values: np.ndarray,
    expected: np.ndarray,
    outputs: dict[str, np.ndarray],
    scores: dict[str, np.ndarray],
) -> None:
    """Keys must be the expected ones, but for the order of those with equal `scores`."""
    if values.shape != expected.shape:
        raise Refused(
            f"'{name}' of '{signature}' has the shape {values.shape}, expected {expected.shape}"
        )
    if "scores" not in scores or scores["scores"].shape != expected.shape:
        raise Refused(f"'{name}' of '{signature}' has no `scores` of its shape beside it")
    found = values.astype("S")
    for row, column in np.argwhere(found != expected):
        key, own = found[row, column], outputs["scores"][row, column]
        place = np.flatnonzero(expected[row] == key)
        # a key that is not expected at all may stand only where the list could end either way
        other = scores["scores"][row, place[0] if len(place) else -1]
        if not abs(float(own) - float(other)) <= 2 * TOLERANCE * max(1.0, abs(float(other))):
            raise Refused(
                f"'{name}' on '{signature}' differs in row {row}, place {column}: {key!r} instead "
                f"of {expected[row, column]!r}"
            )


def latency(model: Any, signature: str, inputs: Tensors) -> float:
    """Median milliseconds of a request."""
    times = []
    for _ in range(LATENCY_CALLS):
        began = time.perf_counter()
        model.signatures[signature](**inputs)
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


def verify(folder: Path, warmup: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything that is checked; returns the report."""
    requests, scores = read_golden(folder)
    check_graph(folder)
    began = time.perf_counter()
    model = load(folder)
    load_s = time.perf_counter() - began
    for number, record in enumerate(warmup):
        inputs = {k: tensor_of(base64.b64decode(v)) for k, v in record["inputs"].items()}
        if record["signature"] not in model.signatures:
            raise Refused(f"warm-up record {number} asks for '{record['signature']}'")
        run(model, record["signature"], inputs, f"warm-up record {number}")
    largest = 0.0
    timings: dict[str, float] = {}
    rows = len(next(iter(scores.values())))
    for signature, inputs in requests.items():
        outputs = run(model, signature, inputs, "the golden request")
        largest = max(largest, compare(signature, outputs, scores))
        one = {name: value[:1] for name, value in inputs.items()}
        timings[f"{signature}, 1 row"] = latency(model, signature, one)
        timings[f"{signature}, {rows} rows"] = latency(model, signature, inputs)
    return {
        "tensorflow": tf.__version__,
        "signatures": {name: describe(model.signatures[name]) for name in SIGNATURES},
        "rows_compared": rows,
        "warmup_records": len(warmup),
        "largest_difference": largest,
        "tolerance": TOLERANCE,
        "load_s": load_s,
        "latency_ms": timings,
    }


def describe(signature: Any) -> dict[str, dict[str, str]]:
    """Inputs and outputs of a signature, name -> type and shape."""
    ends = {
        "inputs": signature.structured_input_signature[1],
        "outputs": signature.structured_outputs,
    }
    return {
        end: {name: f"{t.dtype.name} {t.shape}" for name, t in tensors.items()}
        for end, tensors in ends.items()
    }


def _kind_of(values: np.ndarray) -> str:
    return "NaN" if np.isnan(values).any() else "infinity"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def main() -> None:
    """Writes the report; `refused` is null or the reason."""
    folder, warmup, target = (Path(argument) for argument in sys.argv[1:4])
    try:
        report = {"refused": None, **verify(folder, json.loads(warmup.read_text("utf-8")))}
    except Refused as refused:
        report = {"refused": str(refused)}
    target.write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main()
