"""Batches of one row without any value: enough to make a model's variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from lfm4ads_tf.features.layout import FeatureLayout


def example_batch(layout: FeatureLayout, dims: Mapping[str, int] | None = None) -> dict[str, Any]:
    """One row of missing values.

    Args:
        layout: Columns of the batch, or of the part of it that a model reads.
        dims: Name -> width of the stored representations.
    """
    empty = tf.RaggedTensor.from_row_splits(
        tf.zeros([0], tf.int64), tf.zeros([2], tf.int64), validate=False
    )
    return {
        "ids": -tf.ones([1, _columns(layout.id_columns, len(layout.single))], tf.int64),
        "bags": {field.name: (empty, None) for field in layout.bags},
        "dense": tf.zeros([1, _columns(layout.number_columns, layout.dense_width)]),
        "scenario": tf.zeros([1], tf.int64),
        "branch": tf.zeros([1], tf.int64),
        "item": tf.zeros([1], tf.int64),
        "representations": {n: tf.zeros([1, d + 1]) for n, d in (dims or {}).items()},
    }


def example_of(spec: Any) -> Any:
    """One row of the types of a data set's `element_spec`: ids are missing, numbers 0."""

    def example(name: str, part: Any) -> Any:
        if isinstance(part, Mapping):
            return {key: example(key, member) for key, member in part.items()}
        if isinstance(part, tuple):
            return tuple(example(name, member) for member in part)
        if isinstance(part, tf.RaggedTensorSpec):
            return tf.RaggedTensor.from_row_splits(
                tf.zeros([0], part.dtype), tf.zeros([2], part.row_splits_dtype), validate=False
            )
        if part is None or isinstance(part, tf.NoneTensorSpec):
            return None
        shape = [1 if size is None else size for size in part.shape]
        return tf.fill(shape, tf.cast(-1 if name == "ids" else 0, part.dtype))

    return example("", spec)


def _columns(columns: tuple[int, ...] | None, width: int) -> int:
    """Columns of a batch's matrix, as many as a layout reads."""
    return width if columns is None else max(columns, default=-1) + 1
