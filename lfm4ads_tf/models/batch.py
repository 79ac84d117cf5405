"""What a model is fed: one batch of the encoded cache."""

from __future__ import annotations

from typing import Any, TypedDict

import tensorflow as tf


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
    representations: dict[str, tf.Tensor]
