"""What every index of items does: the k best of its candidates, without excluded items."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Self

import numpy as np
import tensorflow as tf

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.retrieval.config import IndexConfig
from lfm4ads_tf.retrieval.index_items import IndexItems


class Index(tf.Module):
    """Base of the indexes; a query never returns an ineligible or excluded item.

    Attributes:
        k: Items returned per query.
        keys: Of all items, (N,) UTF-8 bytes.
    """

    k: int
    keys: np.ndarray

    @classmethod
    @abstractmethod
    def create(cls, items: IndexItems, config: IndexConfig) -> Self:
        """A new index over the items of a retrieval model."""

    @classmethod
    def settings(cls, config: IndexConfig) -> dict[str, Any]:
        """The keys of the configuration that an index depends on, as JSON."""
        return {}

    @abstractmethod
    def candidates(self, queries: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The best items of each query.

        Args:
            queries: (B, d) float32.
            count: How many are wanted, a scalar.

        Returns:
            Keys (B, C) and scores (B, C), best first, C at most `count`; -inf: no item.
        """

    @abstractmethod
    def item_vectors(self) -> np.ndarray:
        """The items' vectors in the order of their keys, (N, d) float32."""

    def expected(self, queries: np.ndarray, excluded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What an export of this index must answer, see `__call__`.

        Args:
            queries: (B, d) float32.
            excluded: Keys that a query must not get, (B, E) bytes, padded with b"".
        """
        ids, scores = self(queries, tf.constant(excluded.astype(object), tf.string))
        return ids.numpy(), scores.numpy()

    def coarse_scores(self, queries: tf.Tensor) -> tf.Tensor | None:
        """What decides which items are scored at all, (B, L); None where all are."""
        return None

    def decided(self, queries: tf.Tensor, slack: float) -> np.ndarray:
        """Whether the same items are scored if `coarse_scores` are off by `slack`, (B,) bool."""
        return np.ones(len(queries), bool)

    def __call__(
        self, queries: tf.Tensor, excluded: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The k best items of each query.

        Args:
            queries: (B, d) float32.
            excluded: Keys that a query must not get, (B, E) text, padded with "".

        Returns:
            Keys (B, k) text and scores (B, k) float32, best first; where fewer than k items are
            left, the key is "" and the score -inf.
        """
        count = tf.constant(self.k)
        if excluded is not None:
            # E more candidates than asked for: at least k of them are not excluded.
            count += tf.shape(excluded)[1]
        ids, scores = self.candidates(queries, count)
        if excluded is not None:
            hit = tf.reduce_any(tf.equal(ids[:, :, None], excluded[:, None, :]), axis=2)  # (B, C)
            scores = tf.where(hit, -np.inf, scores)
            scores, place = tf.math.top_k(scores, k=tf.minimum(self.k, tf.shape(scores)[1]))
            ids = tf.gather(ids, place, batch_dims=1)  # (B, k)
        missing = self.k - tf.shape(scores)[1]
        ids = tf.pad(ids, [[0, 0], [0, missing]], constant_values="")
        scores = tf.pad(scores, [[0, 0], [0, missing]], constant_values=-np.inf)
        ids = tf.where(tf.math.is_inf(scores), "", ids)
        return tf.ensure_shape(ids, [None, self.k]), tf.ensure_shape(scores, [None, self.k])


def checked_k(k: int) -> int:
    """k itself.

    Raises:
        UserError: It is not positive.
    """
    if k < 1:
        raise UserError("An index returns at least one item.", received=k, fix="set k >= 1")
    return k


def as_vectors(vectors: np.ndarray) -> np.ndarray:
    """(N, d) float32.

    Raises:
        UserError: Another shape, no item, or values that are not finite.
    """
    values = np.ascontiguousarray(vectors, np.float32)
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise UserError(
            "An index needs at least one item with a finite vector.",
            received=f"shape {values.shape}",
        )
    return values


def as_ids(ids: np.ndarray, count: int | None = None) -> np.ndarray:
    """(N,) UTF-8 bytes.

    Raises:
        UserError: Not one distinct, non-empty key per item (where `count` is given).
    """
    keys = np.asarray(ids)
    if keys.dtype.kind != "S":
        keys = np.char.encode(keys.astype(str), "utf-8") if keys.size else np.zeros(0, "S1")
    if count is not None and not (
        keys.shape == (count,) and len(np.unique(keys)) == count and (keys != b"").all()
    ):
        raise UserError(
            "Each vector of an index needs one key of its own.",
            received=f"{len(np.unique(keys))} distinct of {keys.size} keys, {count} vectors",
        )
    return keys
