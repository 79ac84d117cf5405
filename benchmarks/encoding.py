"""Encoding many features: throughput, one row for serving, tracing; against one column at a time.

    python -m benchmarks.encoding [--features 40 400 2000] [--json FILE]

The features are a mix of hashed, vocabulary, identity, bucketised, crossed, numeric and
multi-valued ones. One row for serving is a serialized `tf.train.Example`, parsed and encoded in
one traced function, as an exported model does. The same row goes through the feature columns that
the encoder is defined by, resolved one by one in one traced function that parses it as
`tf.feature_column.make_parse_example_spec` says. Parsing is in both times, and is timed alone for
both as well, so that the encoding itself can be compared.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from rich.console import Console
from rich.table import Table
from tensorflow.python.feature_column.feature_column_v2 import (
    FeatureTransformationCache,
    _StateManagerImpl,
)

from lfm4ads_tf.features.columns import build_columns
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.fitted_encoding import FittedEncoding
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.spec_file import parse_spec
from lfm4ads_tf.features.vocabulary import Vocabulary

FEATURES = (40, 400, 2000)
ROWS = 4096
VALUES = 100  # of a vocabulary; texts are drawn from a few more, so that some are unseen

_MIX = (
    ["hashed"] * 7
    + ["vocabulary"] * 4
    + ["identity"] * 2
    + ["buckets"] * 2
    + ["crossed"] * 2
    + ["numeric"] * 2
    + ["bag"]
)
_BOUNDARIES = [float(k) for k in range(10)]


def mixed_spec(features: int) -> tuple[FeatureSpec, FittedEncoding]:
    """A spec with a number of features of every kind, and what its training rows would settle."""
    declared: dict[str, dict[str, Any]] = {}
    vocabulary = Vocabulary([f"v{k}" for k in range(VALUES)], np.arange(VALUES))
    settled: dict[str, dict[str, Any]] = {"vocabularies": {}, "boundaries": {}, "standardize": {}}
    for i in range(features):
        name, kind = f"f{i:05d}", _MIX[i % len(_MIX)]
        if kind == "bag":
            feature = _bag(i // len(_MIX), name)
        elif kind == "hashed":
            feature = {"kind": "hashed", "buckets": 10_000}
        elif kind == "vocabulary":
            feature = {"kind": "vocabulary"}
        elif kind == "identity":
            feature = {"kind": "identity", "size": 50}
        elif kind == "crossed":  # of two hashed columns of its block
            block = i - i % len(_MIX)
            feature = {"kind": "crossed", "columns": [f"f{block + k:05d}" for k in (i % 3, 4)]}
        elif kind == "buckets":
            feature = {"kind": "numeric", "transform": "buckets", "boundaries": _BOUNDARIES}
            settled["boundaries"][name] = _BOUNDARIES
        else:
            feature = {"kind": "numeric", "transform": "log" if i % 2 else "raw"}
            settled["standardize"][name] = (0.5, 2.0)
        if "vocabulary" in (feature["kind"], feature.get("encoding")):
            settled["vocabularies"][name] = vocabulary
        declared[name] = {"owner": "context", **feature}
    fitted = FittedEncoding(**settled, scenarios=["search", "home"])
    spec = parse_spec(
        {
            "name": "mixed",
            "log": {"files": ["log.csv"]},
            "keys": {"user": "user", "item": "item", "time": "time", "scenario": "surface"},
            "tasks": {"click": "clicked"},
            "split": {"by": "time", "train_until": 1, "valid_until": 2},
            "features": declared,
        }
    )
    return spec, fitted


def _bag(turn: int, name: str) -> dict[str, Any]:
    """Weighted lists, sequences and lists of a vocabulary by turns."""
    kinds: list[dict[str, Any]] = [
        {"kind": "multi", "weights": f"{name}.weights"},
        {"kind": "sequence", "max_length": 3},
        {"kind": "multi", "encoding": "vocabulary"},
    ]
    return kinds[turn % len(kinds)]


def random_rows(encoder: Encoder, rows: int) -> dict[str, Any]:
    """Raw columns as `Encoder.raw_signature` says; lists hold four values."""
    rng = np.random.default_rng(0)

    def texts(count: int) -> tf.Tensor:
        return tf.constant([b"v%d" % k for k in rng.integers(0, VALUES + 20, count)])

    raw: dict[str, Any] = {}
    for column, of in encoder.raw_types.items():
        if of.kind == "text":
            raw[column] = texts(rows)
        elif of.kind == "integer":
            raw[column] = tf.constant(rng.integers(0, 50, rows))
        elif of.kind == "number":
            raw[column] = tf.constant(rng.normal(3, 3, rows).astype(np.float32))
        else:
            flat = texts(4 * rows) if of.kind == "texts" else tf.random.uniform([4 * rows])
            splits = 4 * np.arange(rows + 1)
            raw[column] = tf.RaggedTensor.from_row_splits(flat, splits, validate=False)
    return raw


def example_of(raw: dict[str, Any]) -> tf.Tensor:
    """The first row as one serialized Example, (1,) string."""
    example = tf.train.Example()
    for column, tensor in raw.items():
        values = np.atleast_1d(tensor[0].numpy()).tolist()
        feature = example.features.feature[column]
        if isinstance(values[0], bytes):
            feature.bytes_list.value.extend(values)
        elif isinstance(values[0], int):
            feature.int64_list.value.extend(values)
        else:
            feature.float_list.value.extend(values)
    return tf.constant([example.SerializeToString()])


def measure(features: int, repeats: int = 50) -> dict[str, float]:
    """Times the encoding of a number of features; medians.

    Args:
        features: Number of features.
        repeats: Timed calls per number.

    Returns:
        `rows_per_s`: at 4,096 rows of raw tensors. `batch1_ms`: one serialized row, parsed and
        encoded. `trace_s`: building the encoder and tracing that function.
        `column_by_column_batch1_ms`, `column_by_column_trace_s`: the same with feature columns.
        `parse_ms`, `column_by_column_parse_ms`: parsing alone. `speedup`: of `batch1_ms`, parsing
        included; `encoding_speedup`: of what is left without parsing.
    """
    spec, fitted = mixed_spec(features)
    began = time.perf_counter()
    encoder = Encoder(spec, fitted)
    example_spec = encoder.example_spec()
    ours = _traced(lambda row: _flat(encoder(tf.io.parse_example(row, example_spec))))
    trace_s = time.perf_counter() - began
    began = time.perf_counter()
    columns = _traced(_column_by_column(spec, fitted))
    column_trace_s = time.perf_counter() - began
    of_columns = [c for of_feature in build_columns(spec, fitted).values() for c in of_feature]
    column_spec = tf.feature_column.make_parse_example_spec(of_columns)

    row = example_of(random_rows(encoder, 1))
    functions = {
        "ours": ours,
        "columns": columns,
        "parse": _traced(_parsing(example_spec)),
        "column_parse": _traced(_parsing(column_spec)),
    }
    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function(row)
    for _ in range(repeats):  # interleaved, so that a busy machine slows all alike
        for name, function in functions.items():
            times[name].append(_seconds(function, row))
    ms = {name: float(np.median(values)) * 1e3 for name, values in times.items()}

    raw = random_rows(encoder, ROWS)
    batch = tf.function(
        tf.autograph.experimental.do_not_convert(lambda raw: _flat(encoder(raw))),
        input_signature=[encoder.raw_signature()],
    )
    batch(raw)
    seconds = np.median([_seconds(batch, raw) for _ in range(5)])
    return {
        "rows_per_s": ROWS / float(seconds),
        "batch1_ms": ms["ours"],
        "trace_s": trace_s,
        "column_by_column_batch1_ms": ms["columns"],
        "column_by_column_trace_s": column_trace_s,
        "parse_ms": ms["parse"],
        "column_by_column_parse_ms": ms["column_parse"],
        "speedup": ms["columns"] / ms["ours"],
        "encoding_speedup": (ms["columns"] - ms["column_parse"])
        / max(ms["ours"] - ms["parse"], 1e-3),
    }


def _traced(function: Callable[[tf.Tensor], Any]) -> Any:
    plain = tf.autograph.experimental.do_not_convert(function)
    signature = [tf.TensorSpec([None], tf.string)]
    return tf.function(plain, input_signature=signature).get_concrete_function()


def _flat(encoded: dict[str, Any]) -> list[tf.Tensor]:
    """All of an encoded batch in a few tensors, so that fetching them takes no time."""
    bags = encoded["bags"].values()
    parts = [encoded["ids"], encoded["dense"], encoded["scenario"]]
    if bags:
        parts.append(tf.concat([ids.values for ids, _ in bags], axis=0))
    weights = [w.values for _, w in bags if w is not None]
    return [*parts, tf.concat(weights, axis=0)] if weights else parts


def _parsing(spec: dict[str, Any]) -> Callable[[tf.Tensor], list[tf.Tensor]]:
    """Parses a row; one op makes all columns, so handing one of them back is enough."""

    def parse(row: tf.Tensor) -> list[tf.Tensor]:
        first = next(iter(tf.io.parse_example(row, spec).values()))
        return [getattr(first, "values", first)]

    return parse


def _column_by_column(spec: FeatureSpec, fitted: FittedEncoding) -> Callable[[tf.Tensor], Any]:
    """Parses a row and resolves each feature column by itself, sharing what they transform."""
    columns = [c for of_feature in build_columns(spec, fitted).values() for c in of_feature]
    parser = tf.feature_column.make_parse_example_spec(columns)
    state = _StateManagerImpl(tf_keras.layers.Layer(), trainable=False)
    for column in columns:
        column.create_state(state)

    def encode(row: tf.Tensor) -> list[tf.Tensor]:
        cache = FeatureTransformationCache(tf.io.parse_example(row, parser))
        ids, weights, dense = [], [], []
        for column in columns:
            if hasattr(column, "get_sparse_tensors"):
                pair = column.get_sparse_tensors(cache, state)
                ids.append(tf.cast(pair.id_tensor.values, tf.int64))
                if pair.weight_tensor is not None:
                    weights.append(pair.weight_tensor.values)
            else:
                dense.append(column.get_dense_tensor(cache, state))
        # Only joined, not brought into a matrix: what the columns need no op for is left out.
        parts = [tf.concat(ids, axis=0), tf.concat(dense, axis=1)]
        return [*parts, tf.concat(weights, axis=0)] if weights else parts

    return encode


def _seconds(function: Callable[[Any], Any], argument: Any) -> float:
    began = time.perf_counter()
    result = function(argument)
    for tensor in result:
        tensor.numpy()
    return time.perf_counter() - began


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, nargs="+", default=list(FEATURES))
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    found = {features: measure(features) for features in options.features}
    table = Table(title="Encoding")
    names = list(next(iter(found.values())))
    for head in ("features", *names):
        table.add_column(head, justify="right")
    for features, numbers in found.items():
        table.add_row(str(features), *(f"{numbers[name]:,.2f}" for name in names))
    Console(width=200).print(table)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
