"""Own-tower retrieval of one scenario's items."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.models.batch import EncodedBatch
from lfm4ads_tf.models.two_towers import TwoTowers


class Retriever(tf_keras.Model):
    """Two towers trained with in-batch sampled softmax.

        s(u, i) = <UserTower(u), ItemTower(i)>
        L = -log softmax_i(s(u, i) - log q(i)) over the items i of the batch

    Args:
        layout: Columns of the encoded batch.
        units: Hidden units of each tower; their output is `dim` wide.
        dim: Width of the towers' output.
        embeddings: Tables.
        item_counts: Training positives per item code, (items,): q(i) of the logQ correction.
        seed: Seed of all initial weights.

    Source: Yi et al., Sampling-bias-corrected neural modeling (RecSys 2019); the loss is
    tensorflow-recommenders' `tasks.Retrieval`.
    """

    def __init__(
        self,
        layout: FeatureLayout,
        units: Sequence[int],
        dim: int,
        embeddings: EmbeddingsConfig,
        *,
        item_counts: np.ndarray,
        seed: int = 0,
    ) -> None:
        super().__init__(name="retriever")
        self.two_towers = TwoTowers(layout, [*units, dim], [*units, dim], embeddings, seed=seed)
        self.task = tfrs.tasks.Retrieval(remove_accidental_hits=True)
        share = np.maximum(item_counts, 1) / max(int(item_counts.sum()), 1)
        self._sampling = tf.constant(share, tf.float32)

    def call(self, batch: EncodedBatch, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """User and item vectors, (B, dim) each."""
        towers = self.two_towers.towers(batch, training=training)
        return towers.user, towers.item

    @tf.function  # the task needs AutoGraph, which the training step goes without
    def loss(self, batch: EncodedBatch) -> tf.Tensor:
        """Mean loss of a batch of positives; every row of it is one."""
        user, item = self(batch, training=True)
        total = self.task(
            user,
            item,
            candidate_sampling_probability=tf.gather(self._sampling, batch["item"]),
            candidate_ids=batch["item"],
            compute_metrics=False,
        )
        return total / tf.cast(tf.shape(user)[0], total.dtype)
