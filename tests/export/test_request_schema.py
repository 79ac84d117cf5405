"""Rows as requests, read back by TensorFlow's own parser."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from lfm4ads_tf.export.request_schema import RequestSchema
from lfm4ads_tf.features.raw_types import RawType

SCHEMA = RequestSchema(
    {
        "text": RawType("text"),
        "integer": RawType("integer"),
        "number": RawType("number"),
        "list": RawType("texts"),
        "weights": RawType("numbers"),
        "vector": RawType("vector", 2),
    },
    {"UR": 3},
)
COLUMNS: dict[str, Any] = {
    "text": pa.array(["ü", None]),
    "integer": pa.array([4, None]),
    "number": pa.array([0.5, None]),
    "list": pa.array([["a", "b"], None], pa.list_(pa.string())),
    "weights": pa.array([[0.25, 2.0], None], pa.list_(pa.float64())),
    "vector": pa.array([[1.0, 2.0], None], pa.list_(pa.float64())),
}
REPRESENTATIONS = {"UR": np.array([[1, 2, 3], [0, 0, 0]], np.float32)}


def test_examples_hold_the_values_and_leave_out_what_is_missing() -> None:
    full, empty = SCHEMA.examples(COLUMNS, REPRESENTATIONS)
    assert not tf.train.Example.FromString(empty).features.feature
    parsed = tf.io.parse_single_example(
        full,
        {
            "text": tf.io.FixedLenFeature([], tf.string),
            "integer": tf.io.FixedLenFeature([], tf.int64),
            "number": tf.io.FixedLenFeature([], tf.float32),
            "list": tf.io.FixedLenFeature([2], tf.string),
            "weights": tf.io.FixedLenFeature([2], tf.float32),
            "vector": tf.io.FixedLenFeature([2], tf.float32),
            "UR": tf.io.FixedLenFeature([3], tf.float32),
        },
    )
    assert parsed["text"].numpy().decode() == "ü"
    assert parsed["integer"].numpy() == 4
    assert parsed["number"].numpy() == 0.5
    assert parsed["list"].numpy().tolist() == [b"a", b"b"]
    assert parsed["weights"].numpy().tolist() == [0.25, 2.0]
    assert parsed["vector"].numpy().tolist() == [1.0, 2.0]
    assert parsed["UR"].numpy().tolist() == [1.0, 2.0, 3.0]


def test_tensors_are_padded_and_fit_their_specs() -> None:
    tensors = SCHEMA.tensors(COLUMNS, REPRESENTATIONS)
    assert tensors["text"].tolist() == ["ü".encode(), b""]
    assert tensors["integer"].tolist() == [4, -1]
    assert tensors["number"][0] == 0.5 and np.isnan(tensors["number"][1])
    assert tensors["list"].tolist() == [[b"a", b"b"], [b"", b""]]
    assert tensors["weights"].tolist() == [[0.25, 2.0], [0.0, 0.0]]
    assert tensors["vector"].tolist() == [[1.0, 2.0], [0.0, 0.0]]
    for name, spec in SCHEMA.tensor_specs().items():
        assert spec.is_compatible_with(tf.constant(tensors[name], spec.dtype)), name


def test_a_list_that_is_empty_in_every_row_still_has_one_column() -> None:
    schema = RequestSchema({"list": RawType("texts")}, {})
    columns = {"list": pa.array([[], []], pa.list_(pa.string()))}
    assert schema.tensors(columns, {})["list"].tolist() == [[b""], [b""]]
