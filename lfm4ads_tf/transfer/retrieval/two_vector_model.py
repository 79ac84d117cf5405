"""What every retrieval model is: two vectors whose product is the score."""

from __future__ import annotations

import abc
from typing import Any

import tensorflow as tf

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.embeddings.table import ShardedEmbedding
from lfm4ads_tf.models.trainable_model import TrainableModel
from lfm4ads_tf.models.two_towers import TwoTowers


class TwoVectorModel(TrainableModel):
    """s(u, i) = <user(u), item(i)>.

    An export asks for the raw columns of the user's tower where there are `two_towers`, else for
    the stored representation `source`, which it gives to `projection`.

    Args:
        dim: Width of both vectors.
        name: Of the model.

    Attributes:
        dim: Width of both vectors.
        two_towers: Towers whose user side is the user's vector, or None.
        source: The stored representation that the user's vector is made of, or None.
        projection: Layer that makes it, (B, d) -> (B, dim), or None.
    """

    def __init__(self, dim: int, *, name: str) -> None:
        super().__init__(name=name)
        self.dim = dim
        self.two_towers: TwoTowers | None = None
        self.source: str | None = None
        self.projection: Any = None

    @property
    def sources(self) -> list[str]:
        """See `TrainableModel`: the user's representation, and the items'."""
        return [] if self.source is None else [self.source, "IR"]

    @property
    def all_embeddings(self) -> list[ShardedEmbedding]:
        """All layers that hold tables."""
        return [] if self.two_towers is None else [self.two_towers.embeddings]

    @abc.abstractmethod
    def users(self, batch: EncodedBatch, training: bool = False) -> tf.Tensor:
        """The users' vectors, (B, dim)."""

    @abc.abstractmethod
    def items(self, batch: EncodedBatch, training: bool = False) -> tf.Tensor:
        """The items' vectors, (B, dim)."""

    @abc.abstractmethod
    def loss_terms(self, batch: EncodedBatch, training: bool = True) -> dict[str, tf.Tensor]:
        """`retrieval`: the mean loss of a batch, see `RetrievalLoss`."""
