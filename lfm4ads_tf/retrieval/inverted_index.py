"""Approximate top-k by inner product: inverted lists of coarse centroids."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import tensorflow as tf

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.retrieval.coarse import assign
from lfm4ads_tf.retrieval.config import IndexConfig
from lfm4ads_tf.retrieval.index import Index, as_ids, as_vectors, checked_k
from lfm4ads_tf.retrieval.index_items import IndexItems
from lfm4ads_tf.retrieval.partition import Partition

_LOG = logging.getLogger(__name__)
_KEPT = "partition.npz"  # in the model's folder
_SLACK = 1.25  # longest list, relative to the mean
_MOST_DISPLACED = 0.25  # share of items outside their nearest list above which to rebuild
_MOST_DISTORTION = 1.5  # relative to that at training above which to rebuild


@dataclass(frozen=True)
class RefreshReport:
    """What a refresh did and whether the centroids still fit.

    Attributes:
        added, removed, changed: Items that are new, gone, or have another vector.
        moved: Items that were there and are now in another list.
        displaced: Share of items that found no room in their nearest list.
        distortion: Mean squared distance to the nearest centroid, relative to that of the items
            that the centroids were trained on.
        rebuild: Whether new centroids should be trained.
    """

    added: int
    removed: int
    changed: int
    moved: int
    displaced: float
    distortion: float
    rebuild: bool


class InvertedIndex(Index):
    """Scores the items of the lists whose centroids are best for the query.

        lists(q) = top_P_l <q, c_l>,    scores(q) = top_k_i <q, v_i>  over the items i of lists(q)

    A list is a block of equal length, so a probe reads memory that is contiguous; scores are exact
    float32 products. Stock ops and variables only, so that it lives in a SavedModel.

    Args:
        ids: Item keys, (N,) text.
        vectors: (N, d) float32.
        partition: Centroids and probes.
        k: Items returned per query.

    Raises:
        UserError: `k` is not positive or the shapes do not fit.

    Source: Jegou et al., Product quantization for nearest neighbor search (PAMI 2011), the
    inverted file without the quantizer.
    """

    def __init__(
        self, ids: np.ndarray, vectors: np.ndarray, partition: Partition, *, k: int
    ) -> None:
        super().__init__(name="inverted_index")
        self.k = checked_k(k)
        self.partition = partition
        values = as_vectors(vectors)
        self.keys = as_ids(ids, len(values))
        lists, width = partition.centroids.shape
        if values.shape[1] != width:
            raise UserError(
                "The vectors do not fit the centroids.",
                received=f"width {values.shape[1]} for centroids of width {width}",
                fix="train the centroids anew",
            )
        moved = values @ partition.metric
        centers = partition.centroids @ partition.metric
        length = math.ceil(_SLACK * len(values) / lists)
        assigned = assign(moved, centers, length)
        self.list_of = assigned.lists
        self.displaced = assigned.displaced
        self.distortion = assigned.distortion / max(partition.distortion, 1e-30)
        order = np.argsort(self.list_of, kind="stable")
        counts = np.bincount(self.list_of, minlength=lists)
        length = int(counts.max())
        starts = np.cumsum(counts) - counts
        place = np.arange(len(values)) - starts[self.list_of[order]]  # within the list
        self._slot = np.empty(len(values), np.int64)
        self._slot[order] = self.list_of[order] * length + place
        blocks = np.zeros((lists * length, width), np.float32)
        blocks[self._slot] = values
        rows = np.zeros(lists * length, np.int32)
        rows[self._slot] = np.arange(len(values))
        self._free = np.full(lists * length, -np.inf, np.float32)
        self._free[self._slot] = 0.0
        self.centroids = tf.Variable(partition.centroids, trainable=False, name="centroids")
        self.vectors = tf.Variable(
            blocks.reshape(lists, length, width), trainable=False, name="vectors"
        )  # (L, M, d)
        self.rows = tf.Variable(rows.reshape(lists, length), trainable=False, name="rows")
        self.penalty = tf.Variable(
            self._free.reshape(lists, length), trainable=False, name="penalty"
        )  # (L, M)
        self.ids = tf.Variable(self.keys.astype(object), dtype=tf.string, trainable=False)

    @classmethod
    def create(cls, items: IndexItems, config: IndexConfig) -> Self:
        """See `Index`; centroids and number of probes are kept in the model's folder."""
        kept = items.folder / _KEPT
        if items.refreshed and kept.exists():
            index = cls(items.keys, items.vectors, Partition.load(kept), k=items.k)
            if not index.stale:
                return index
            _LOG.warning("the items have moved away from the index's centroids; they are trained")
        queries = items.queries()
        partition = Partition.fit(items.vectors, queries, lists=config.lists, seed=items.seed)
        index = cls(items.keys, items.vectors, partition, k=items.k)
        index.probing(config.probes, queries, recall=config.recall)
        index.partition.save(kept)
        return index

    @classmethod
    def settings(cls, config: IndexConfig) -> dict[str, Any]:
        """See `Index`."""
        return config.model_dump(mode="json")

    @property
    def lists(self) -> int:
        """Number of lists."""
        return len(self.partition.centroids)

    def probing(self, probes: int | None, queries: np.ndarray, *, recall: float) -> InvertedIndex:
        """This index, reading another number of lists per query; call it before tracing.

        Args:
            probes: That number; when None, the fewest that find a share of the exact k best.
            queries: Queries to tune on, (Q, d).
            recall: That share.
        """
        if probes is None:
            self.partition = self.partition.tuned(
                self.item_vectors(), self.list_of, queries, k=self.k, recall=recall
            )
        else:
            self.partition = replace(self.partition, probes=min(probes, self.lists))
        return self

    def set_ineligible(self, ids: np.ndarray) -> None:
        """Items that no query returns from now on; replaces those of the call before."""
        penalty = self._free.copy()
        penalty[self._slot[np.isin(self.keys, as_ids(ids))]] = -np.inf
        self.penalty.assign(penalty.reshape(self.penalty.shape))  # (L, M)

    def item_vectors(self) -> np.ndarray:
        """See `Index`."""
        flat = self.vectors.numpy().reshape(-1, self.vectors.shape[-1])  # (L M, d)
        return np.asarray(flat[self._slot])

    def coarse_scores(self, queries: tf.Tensor) -> tf.Tensor:
        """See `Index`."""
        return tf.matmul(queries, self.centroids, transpose_b=True)  # (B, L)

    def decided(self, queries: tf.Tensor, slack: float) -> np.ndarray:
        """See `Index`: the last list that is read is ahead of the first one that is not."""
        probes = min(self.partition.probes, self.lists)
        if probes == self.lists:
            return super().decided(queries, slack)
        near = np.sort(self.coarse_scores(queries).numpy(), axis=1)[:, ::-1]  # (B, L)
        return np.asarray(near[:, probes - 1] - near[:, probes] > 2 * slack)

    def candidates(self, queries: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """See `Index`."""
        batch = tf.shape(queries)[0]
        near = self.coarse_scores(queries)  # (B, L)
        probes = min(self.partition.probes, self.lists)
        _, lists = tf.math.top_k(near, k=probes, sorted=False)  # (B, P)
        blocks = tf.gather(self.vectors, lists)  # (B, P, M, d)
        width = blocks.shape[-1]
        flat = tf.reshape(blocks, [batch, -1, width])  # (B, P M, d)
        scores = tf.linalg.matvec(flat, queries)  # (B, P M)
        scores += tf.reshape(tf.gather(self.penalty, lists), [batch, -1])  # (B, P M)
        best, place = tf.math.top_k(scores, k=tf.minimum(count, tf.shape(scores)[1]))
        rows = tf.reshape(tf.gather(self.rows, lists), [batch, -1])  # (B, P M)
        return tf.gather(self.ids, tf.gather(rows, place, batch_dims=1)), best

    @property
    def stale(self) -> bool:
        """Whether the items have moved so far that new centroids should be trained."""
        return self.displaced > _MOST_DISPLACED or self.distortion > _MOST_DISTORTION

    def refreshed(
        self, ids: np.ndarray, vectors: np.ndarray
    ) -> tuple[InvertedIndex, RefreshReport]:
        """An index of other items in the lists of the same centroids; nothing is trained.

        Every item is ineligible no more; call `set_ineligible` again.

        Args:
            ids: All item keys from now on, (N',).
            vectors: (N', d).
        """
        fresh = InvertedIndex(ids, vectors, self.partition, k=self.k)
        _, old, new = np.intersect1d(self.keys, fresh.keys, assume_unique=True, return_indices=True)
        flat = self.vectors.numpy().reshape(-1, fresh.vectors.shape[-1])  # (L M, d)
        before = flat[self._slot[old]]
        now = as_vectors(vectors)[new]
        return fresh, RefreshReport(
            added=len(fresh.keys) - len(new),
            removed=len(self.keys) - len(old),
            changed=int((before != now).any(axis=1).sum()),
            moved=int((self.list_of[old] != fresh.list_of[new]).sum()),
            displaced=fresh.displaced,
            distortion=fresh.distortion,
            rebuild=fresh.stale,
        )
