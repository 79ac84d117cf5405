"""Whether two run folders hold the same results bit for bit.

    python -m benchmarks.same_bits RUNS/before RUNS/after

Compared are the weights of every model and snapshot (tables and TensorFlow's files, variable by
variable), representations, predictions, the entries of `metrics.json` and `results.json` apart from
what is measured by the clock, and what every exported SavedModel gives for its golden requests.
Each kind of file is told with the number that was compared. Exits with 1 where something differs or
is there on one side alone, and with 2 where there is nothing to compare; keys that only the second
folder's entries have are told and are no difference, so that a change may add to them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

import lfm4ads_tf  # noqa: F401 - settles which Keras is used before anything imports TensorFlow

CLOCK = ("wall_s", "examples_per_s", "throughput", "seconds")
"""Keys of entries that no two runs share."""
_SKIPPED = ("tensorboard", "exports", "checkpoint", "data")
"""Folders that are compared otherwise, or hold no result."""


def differences(before: Path, after: Path, told: Counter[str]) -> Iterator[str]:
    """What differs between two run folders, a line each.

    Args:
        before, after: The run folders.
        told: Gets the number of compared files of each kind, and of added keys.
    """
    kinds: dict[str, Callable[[Path, Path], str | None]] = {
        ".npy": _same_array,
        ".npz": _same_arrays,
        ".parquet": _same_table,
        ".index": _same_variables,
        ".json": lambda a, b: _same_document(a, b, told),
    }
    for suffix, same in kinds.items():
        mine, theirs = (_files(folder, suffix) for folder in (before, after))
        for name in sorted(mine ^ theirs):
            yield f"{name}: only in {before if name in mine else after}"
        for name in sorted(mine & theirs):
            told[f"*{suffix}"] += 1
            wrong = same(before / name, after / name)
            if wrong is not None:
                yield f"{name}: {wrong}"
    mine, theirs = (
        {str(p.relative_to(f)) for p in (f / "exports").glob("*/*") if p.name.isdigit()}
        for f in (before, after)
    )
    for name in sorted(mine ^ theirs):
        yield f"{name}: only in {before if name in mine else after}"
    for name in sorted(mine & theirs):
        told["exports"] += 1
        yield from (f"{name}: {wrong}" for wrong in _same_export(before / name, after / name))


def _files(folder: Path, suffix: str) -> set[str]:
    paths = (p.relative_to(folder) for p in folder.rglob(f"*{suffix}"))
    return {str(p) for p in paths if not set(_SKIPPED) & set(p.parts)}


def _equal(one: Any, other: Any) -> bool:
    """Equal values, types and shapes; NaN equals NaN."""
    one, other = np.asarray(one), np.asarray(other)
    return (
        one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    )


def _apart(one: Any, other: Any) -> str:
    one, other = np.asarray(one), np.asarray(other)
    if one.shape != other.shape or one.dtype != other.dtype:
        return f"{one.dtype}{one.shape} and {other.dtype}{other.shape}"
    if not np.issubdtype(one.dtype, np.number):
        return "other values"
    return f"differs by up to {np.nanmax(np.abs(one.astype(np.float64) - other)):.3g}"


def _same_array(one: Path, other: Path) -> str | None:
    values, others = np.load(one), np.load(other)
    return None if _equal(values, others) else _apart(values, others)


def _same_arrays(one: Path, other: Path) -> str | None:
    with np.load(one) as values, np.load(other) as others:
        return _same_named({k: values[k] for k in values}, {k: others[k] for k in others})


def _same_named(values: Mapping[str, Any], others: Mapping[str, Any]) -> str | None:
    if set(values) != set(others):
        return f"other names: {', '.join(sorted(set(values) ^ set(others)))}"
    for name in values:
        if not _equal(values[name], others[name]):
            return f"{name} {_apart(values[name], others[name])}"
    return None


def _same_table(one: Path, other: Path) -> str | None:
    return None if pq.read_table(one).equals(pq.read_table(other)) else "other rows"


def _same_variables(one: Path, other: Path) -> str | None:
    """TensorFlow's weights without the counter of saves."""
    import tensorflow as tf

    def of(path: Path) -> dict[str, Any]:
        reader = tf.train.load_checkpoint(str(path.with_suffix("")))
        names = [n for n in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in n]
        return {n: reader.get_tensor(n) for n in names if not n.startswith("save_counter")}

    return _same_named(of(one), of(other))


def _same_document(one: Path, other: Path, told: Counter[str]) -> str | None:
    if one.name not in ("metrics.json", "results.json", "manifest.json", "search.json"):
        return None
    documents = [json.loads(p.read_text("utf-8")) for p in (one, other)]
    return _same_value(*documents, "", told)


def _same_value(one: Any, other: Any, path: str, told: Counter[str]) -> str | None:
    if isinstance(one, dict) and isinstance(other, dict):
        lost = set(one) - set(other) - set(CLOCK)
        if lost:
            return f"{path} has no {', '.join(sorted(lost))} any more"
        for key in set(other) - set(one) - set(CLOCK):
            told[f"added key {key}"] += 1
        keys = [key for key in one if key not in CLOCK]
        pairs = [(one[key], other[key], f"{path}.{key}") for key in keys]
    elif isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            return f"{path} has {len(one)} and {len(other)} entries"
        pairs = [(a, b, f"{path}[{k}]") for k, (a, b) in enumerate(zip(one, other, strict=True))]
    else:
        same = one == other or (one != one and other != other)
        return None if same else f"{path} is {one} and {other}"
    return next((w for w in (_same_value(a, b, p, told) for a, b, p in pairs) if w), None)


def _same_export(one: Path, other: Path) -> Iterator[str]:
    """Outputs of both SavedModels for the golden requests of the first."""
    import tensorflow as tf
    from tensorflow.core.framework.tensor_pb2 import TensorProto

    models = [tf.saved_model.load(str(folder)) for folder in (one, other)]
    with np.load(one / "assets.extra" / "golden.npz") as golden:
        requests: dict[str, dict[str, tf.Tensor]] = {}
        for key in golden:
            part, signature, name = key.split("/", 2)
            if part == "requests":
                proto = TensorProto.FromString(golden[key].tobytes())
                requests.setdefault(signature, {})[name] = tf.constant(tf.make_ndarray(proto))
    for signature, inputs in requests.items():
        if any(signature not in model.signatures for model in models):
            yield f"signature {signature} is not in both"
            continue
        asked = [set(m.signatures[signature].structured_input_signature[1]) for m in models]
        if asked[0] != asked[1]:
            yield f"{signature} reads {', '.join(sorted(asked[0] ^ asked[1]))} in one alone"
            continue
        outputs = [model.signatures[signature](**inputs) for model in models]
        numbers = [{n: v.numpy() for n, v in o.items() if v.dtype != tf.string} for o in outputs]
        wrong = _same_named(*numbers)
        if wrong is not None:
            yield f"{signature}: {wrong}"


def main() -> None:
    """Compares and tells."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    given = parser.parse_args()
    told: Counter[str] = Counter()
    wrong = list(differences(given.before, given.after, told))
    if not told and not wrong:
        parser.error("neither folder holds a result: give two run folders")
    print(", ".join(f"{kind} {count}" for kind, count in told.items()))
    print("\n".join(wrong) if wrong else "the same bits")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
