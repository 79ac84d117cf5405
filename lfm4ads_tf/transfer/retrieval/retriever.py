"""Own-tower retrieval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.models.two_towers import TwoTowers
from lfm4ads_tf.transfer.retrieval.retrieval_loss import RetrievalLoss, RetrievalLossName
from lfm4ads_tf.transfer.retrieval.two_vector_model import TwoVectorModel


class Retriever(TwoVectorModel):
    """Two towers with tables of their own.

        s(u, i) = <UserTower(u), ItemTower(i)>

    Args:
        layout: Columns of the encoded batch.
        units: Hidden units of each tower; their output is `dim` wide.
        dim: Width of the towers' output.
        embeddings: Tables.
        item_counts: Training positives per item code, (items,): q(i) of the logQ correction.
        loss: See `RetrievalLoss`.
        task: Column of the labels that the `bce` loss reads.
        seed: Seed of all initial weights.
    """

    two_towers: TwoTowers

    def __init__(
        self,
        layout: FeatureLayout,
        units: Sequence[int],
        dim: int,
        embeddings: EmbeddingsConfig,
        *,
        item_counts: np.ndarray,
        loss: RetrievalLossName = "softmax",
        task: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(dim, name="retriever")
        self.layout = layout
        self.two_towers = TwoTowers(layout, [*units, dim], [*units, dim], embeddings, seed=seed)
        self._loss = RetrievalLoss(loss, item_counts, task)

    def call(self, batch: EncodedBatch, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """User and item vectors, (B, dim) each."""
        towers = self.two_towers.towers(batch, training=training)
        return towers.user, towers.item

    def users(self, batch: EncodedBatch, training: bool = False) -> tf.Tensor:
        """See `TwoVectorModel`."""
        return self.two_towers.towers(batch, training=training).user

    def items(self, batch: EncodedBatch, training: bool = False) -> tf.Tensor:
        """See `TwoVectorModel`."""
        return self.two_towers.towers(batch, training=training).item

    def loss_terms(self, batch: EncodedBatch, training: bool = True) -> dict[str, tf.Tensor]:
        """See `TwoVectorModel`."""
        user, item = self(batch, training=training)
        return {"retrieval": self._loss(user, item, batch)}
