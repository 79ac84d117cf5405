"""Retrieval by a stored user representation against the upstream's item representation."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tf_keras

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.seeding import glorot
from lfm4ads_tf.transfer.retrieval.retrieval_loss import RetrievalLoss, RetrievalLossName
from lfm4ads_tf.transfer.retrieval.two_vector_model import TwoVectorModel

ITEM = "IR"


class ProjectedRetriever(TwoVectorModel):
    """A projection into the space of the frozen IR.

        s(u, i) = <W r(u) + b, IR(i)>    r: UR or CR_user; only W and b are trained

    Args:
        source: The stored representation r.
        dim: Width of IR.
        item_counts: Training positives per item code, (items,): q(i) of the logQ correction.
        loss: See `RetrievalLoss`.
        task: Column of the labels that the `bce` loss reads.
        seed: Seed of the initial weights.

    Source: LFM4Ads (arXiv 2508.14948), model-level usage, standalone retrieval.
    """

    source: str

    def __init__(
        self,
        source: str,
        dim: int,
        *,
        item_counts: np.ndarray,
        loss: RetrievalLossName = "softmax",
        task: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(dim, name="projected_retriever")
        self.layout = FeatureLayout((), (), (), (), ())  # it reads no feature
        self.source = source
        self.projection = tf_keras.layers.Dense(
            dim, kernel_initializer=glorot(seed, "projection"), name="projection"
        )
        self._loss = RetrievalLoss(loss, item_counts, task)

    @property
    def representation_dims(self) -> dict[str, int]:
        """See `TrainableModel`; as wide as the projection's input, once there is one."""
        return {self.source: int(self.projection.kernel.shape[0]), ITEM: self.dim}

    def call(self, batch: EncodedBatch, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """User and item vectors, (B, dim) each; a user without the representation gets b."""
        return self.users(batch), self.items(batch)

    def users(self, batch: EncodedBatch, training: bool = False) -> tf.Tensor:
        """See `TwoVectorModel`."""
        return self.projection(batch["representations"][self.source][:, :-1])

    def items(self, batch: EncodedBatch, training: bool = False) -> tf.Tensor:
        """See `TwoVectorModel`."""
        return batch["representations"][ITEM][:, :-1]

    def loss_terms(self, batch: EncodedBatch, training: bool = True) -> dict[str, tf.Tensor]:
        """See `TwoVectorModel`."""
        user, item = self(batch, training=training)
        return {"retrieval": self._loss(user, item, batch)}
