"""Exact top-k by inner product."""

from __future__ import annotations

from typing import Self

import numpy as np
import tensorflow as tf

from lfm4ads_tf.retrieval.config import IndexConfig
from lfm4ads_tf.retrieval.index import Index, as_ids, as_vectors, checked_k
from lfm4ads_tf.retrieval.index_items import IndexItems


class ExactIndex(Index):
    """Scores every item and returns the k best.

        scores(q) = top_k_i <q, v_i>    over the eligible items i

    Stock ops and variables only, so that it lives in a SavedModel.

    Args:
        ids: Item keys, (N,) text; the order decides between equal scores.
        vectors: (N, d) float32.
        k: Items returned per query.

    Raises:
        UserError: `k` is not positive or the shapes do not fit.
    """

    def __init__(self, ids: np.ndarray, vectors: np.ndarray, *, k: int) -> None:
        super().__init__(name="exact_index")
        self.k = checked_k(k)
        values = as_vectors(vectors)
        self.keys = as_ids(ids, len(values))
        self.vectors = tf.Variable(values, trainable=False, name="vectors")
        self.ids = tf.Variable(self.keys.astype(object), dtype=tf.string, trainable=False)
        self.penalty = tf.Variable(tf.zeros([len(values)]), trainable=False, name="penalty")

    @classmethod
    def create(cls, items: IndexItems, config: IndexConfig) -> Self:
        """See `Index`."""
        return cls(items.keys, items.vectors, k=items.k)

    def set_ineligible(self, ids: np.ndarray) -> None:
        """Items that no query returns from now on; replaces those of the call before."""
        self.penalty.assign(np.where(np.isin(self.keys, as_ids(ids)), -np.inf, 0.0))

    def item_vectors(self) -> np.ndarray:
        """See `Index`."""
        return np.asarray(self.vectors.numpy())

    def candidates(self, queries: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """See `Index`."""
        scores = tf.matmul(queries, self.vectors, transpose_b=True) + self.penalty  # (B, N)
        best, place = tf.math.top_k(scores, k=tf.minimum(count, tf.shape(scores)[1]))
        return tf.gather(self.ids, place), best

    def expected(self, queries: np.ndarray, excluded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Index`; by NumPy in double precision."""
        scores = queries.astype(np.float64) @ self.vectors.numpy().T.astype(np.float64)  # (B, N)
        scores += self.penalty.numpy()
        for row, keys in enumerate(excluded):
            scores[row, np.isin(self.keys, keys)] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, : self.k]  # (B, k)
        best = np.take_along_axis(scores, order, axis=1).astype(np.float32)
        ids = np.where(np.isinf(best), b"", self.keys[order]).astype(object)
        missing = self.k - best.shape[1]
        return (
            np.pad(ids, [(0, 0), (0, missing)], constant_values=b""),
            np.pad(best, [(0, 0), (0, missing)], constant_values=-np.inf),
        )
