"""The public experiment's model-level usage: a dot product in the items' space."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tf_keras

from lfm4ads_tf.experiments.public_network import DIM, build_linear, embed
from lfm4ads_tf.experiments.torch_initial import embedding_values


class PublicRetriever(tf_keras.Model):
    """s(u, i) = (W r(u) + b) . v(i).

    `Retriever`: r and v are own embeddings and everything is trained. `IR & UR`, `IR & CR_l`: r is
    a representation of the user, v the upstream's IR, and only W and b are trained.

    Args:
        sizes: Number of values of each field, users' fields first.
        user_fields: How many of the fields are the user's.
        items: The upstream's table (rows, DIM), fixed; None for own embeddings.
        representations: (U, d) of the users, fixed; None for own embeddings.
        seed: Seed of the initial weights.

    Source: the public experiment of LFM4Ads (arXiv 2508.14948).
    """

    def __init__(
        self,
        sizes: Sequence[int],
        user_fields: int,
        *,
        items: np.ndarray | None = None,
        representations: np.ndarray | None = None,
        seed: int,
    ) -> None:
        super().__init__(name="public_retriever")
        draw = np.random.default_rng(seed)
        self._user_fields = user_fields
        self._known = None if representations is None else tf.constant(representations)
        values = embedding_values(draw, sum(sizes), DIM) if items is None else items
        self.table = tf.Variable(values, trainable=items is None, name="table")
        self.projection = tf_keras.layers.Dense(DIM * (len(sizes) - user_fields), name="projection")
        width = DIM * user_fields if representations is None else representations.shape[1]
        build_linear(self.projection, draw, width)

    def call(self, batch: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Logits (B,) of a batch with `ids` (B, F) and `user` (B,)."""
        ids = batch["ids"]
        if self._known is None:
            user = embed(self.table, ids[:, : self._user_fields])  # (B, d)
        else:
            user = tf.gather(self._known, batch["user"])  # (B, d)
        items = embed(self.table, ids[:, self._user_fields :])  # (B, d_i)
        return tf.reduce_sum(self.projection(user) * items, axis=-1)  # (B,)
