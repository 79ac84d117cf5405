"""What a model is fed: one batch of the encoded cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypedDict

import numpy as np
import tensorflow as tf

from lfm4ads_tf.errors import UserError

FAILURES = "failures"
"""Attribute of a data set: the `UserError`s of what its batches were read from."""
PASS_NUMBER = "pass_number"
"""Attribute of a data set of shuffled passes: `next`, the number of its next pass from 0 on."""
BRANCHES = ("content", "ad")
"""Names of the branches; a row's `branch` is the position of its own."""


class EncodedBatch(TypedDict, total=False):
    """One encoded batch; a plain dictionary, so that tf.data and tf.function take it as it is.

    Keys:
        ids: (B, F) int64 logical ids of the single-valued fields; -1 is missing.
        bags: Field -> (ids RaggedTensor (B, None), weights RaggedTensor or None).
        dense: (B, N) float32.
        scenario: (B,) int64 index into the layout's scenarios, -1 unknown.
        branch: (B,) int64, 1 for an ad, 0 for content.
        item: (B,) int64 code of the item key.
        labels: (B, T) float32, NaN where unknown.
        weights: (B,) or (B, T) float32 factors of the rows' losses; absent where all are 1.
        representations: Name -> (B, d + 1) float32, the last column being 1 where the key had a
            representation and 0 (with zeros before it) where it had none.
    """

    ids: tf.Tensor
    bags: dict[str, Any]
    dense: tf.Tensor
    scenario: tf.Tensor
    branch: tf.Tensor
    item: tf.Tensor
    labels: tf.Tensor
    weights: tf.Tensor
    representations: dict[str, tf.Tensor]


def batch_of(
    encoded: Mapping[str, Any], representations: Mapping[str, np.ndarray], start: int, stop: int
) -> EncodedBatch:
    """Rows [start, stop) of encoded ones as a batch.

    Args:
        encoded: What `encode_columns` gave, N rows.
        representations: Name -> (N, d + 1).
        start, stop: 0 <= start <= stop <= N.
    """
    rows = slice(start, stop)
    bags: dict[str, Any] = {}
    for name, (values, splits, weights) in encoded["bags"].items():
        low, high = splits[start], splits[stop]
        own = splits[start : stop + 1] - low
        ids = tf.RaggedTensor.from_row_splits(values[low:high].astype(np.int64), own)
        of = None if weights is None else tf.RaggedTensor.from_row_splits(weights[low:high], own)
        bags[name] = (ids, of)
    return {
        "ids": tf.constant(encoded["ids"][rows], tf.int64),
        "bags": bags,
        "dense": tf.constant(encoded["dense"][rows], tf.float32),
        "scenario": tf.constant(encoded["scenario"][rows], tf.int64),
        "branch": tf.constant(encoded["branch"][rows], tf.int64),
        "representations": {
            name: tf.constant(values[rows], tf.float32) for name, values in representations.items()
        },
    }


def read(data: tf.data.Dataset) -> Iterator[Any]:
    """The batches of a data set.

    Raises:
        UserError: A file cannot be read; tf.data alone would turn it into an error of its own.
    """
    with first_failure(data):
        yield from data


@contextmanager
def first_failure(data: tf.data.Dataset) -> Iterator[None]:
    """Raises what kept a data set from being read, instead of what tf.data makes of it."""
    failures: list[UserError] = vars(data).get(FAILURES, [])
    try:
        yield
    except tf.errors.OpError as error:
        if failures:
            raise failures[0] from error
        raise
