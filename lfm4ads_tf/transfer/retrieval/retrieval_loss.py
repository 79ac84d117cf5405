"""Losses of two-vector retrieval models."""

from __future__ import annotations

from typing import Literal

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.losses.masked_bce import masked_bce

RetrievalLossName = Literal["softmax", "bce"]


class RetrievalLoss(tf.Module):
    """The loss of user and item vectors of a batch.

        softmax: L = -w log softmax_i(<u, v_i> - log q(i))    over the items i of the batch
        bce:     L = w BCE(sigmoid(<u, v>), y_task)           where the label is known

    w is the row's weight, 1 without weights; the mean is over the rows, not over their weights.

    Args:
        name: See above. For `softmax` every row of a batch must be a positive.
        item_counts: Training positives per item code, (items,): q(i) is the share of them.
        task: Column of the labels, for `bce`.

    Source: Yi et al., Sampling-bias-corrected neural modeling (RecSys 2019); the softmax is
    tensorflow-recommenders' `tasks.Retrieval`.
    """

    def __init__(self, name: RetrievalLossName, item_counts: np.ndarray, task: int = 0) -> None:
        super().__init__(name="retrieval_loss")
        self._task = task
        self._softmax = (
            tfrs.tasks.Retrieval(remove_accidental_hits=True) if name == "softmax" else None
        )
        share = np.maximum(item_counts, 1) / max(int(item_counts.sum()), 1)
        self._sampling = tf.constant(share, tf.float32)

    @tf.function  # the task needs AutoGraph, which the training step goes without
    def __call__(self, user: tf.Tensor, item: tf.Tensor, batch: EncodedBatch) -> tf.Tensor:
        """Mean loss of a batch.

        Args:
            user, item: (B, d).
            batch: Its `item` (B,), for `bce` `labels` (B, T), and `weights` (B,) or (B, T) where
                rows are weighted: of several columns the task's counts.
        """
        weights = batch.get("weights")
        if weights is not None and weights.shape.rank == 2:
            weights = weights[:, self._task]  # (B,)
        if self._softmax is None:
            scores = tf.reduce_sum(user * item, axis=1, keepdims=True)  # (B, 1)
            labels = batch["labels"][:, self._task : self._task + 1]
            return masked_bce(labels, scores, tf.ones([1]), weights)
        total = self._softmax(
            user,
            item,
            sample_weight=weights,
            candidate_sampling_probability=tf.gather(self._sampling, batch["item"]),
            candidate_ids=batch["item"],
            compute_metrics=False,
        )
        return total / tf.cast(tf.shape(user)[0], total.dtype)
