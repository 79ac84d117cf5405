"""How an inverted index divides its items, and how much of it a query has to read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.files import write_arrays
from lfm4ads_tf.retrieval.coarse import kmeans, nearest_centroids

_FLOOR = 1e-4  # of the largest eigenvalue: directions in which no query points still count a bit
_LISTS_PER_ROOT = 4.0
_TUNING = 512  # queries at most that the number of probes is tuned on
_SAMPLE = 65536  # items whose distance to the centroids is averaged
_BLOCK = 32  # queries whose scores over all items are held at once


@dataclass(frozen=True)
class Partition:
    """Centroids in a metric that the queries set, and the number of lists that a query reads.

    An item's error in the scores of the queries is E_q <q, x - c>^2 = (x - c)' S (x - c) with
    S = E q q'. So items are clustered by Euclidean distance after x -> x S^(1/2): directions in
    which queries do not differ do not divide the items.

    Attributes:
        centroids: (L, d) float32, in the space of the items.
        metric: S^(1/2), (d, d) float32; the identity without queries.
        probes: Lists that a query reads, those with the highest <q, c>.
        distortion: Mean squared distance in the metric of an item to its nearest centroid, of the
            items that the centroids were trained on.
    """

    centroids: np.ndarray
    metric: np.ndarray
    probes: int
    distortion: float

    @classmethod
    def fit(
        cls,
        vectors: np.ndarray,
        queries: np.ndarray | None = None,
        *,
        lists: int | None = None,
        seed: int = 0,
    ) -> Partition:
        """Trains the centroids; every list is read until `tuned`.

        Args:
            vectors: Items, (N, d) float32.
            queries: A sample of queries, (Q, d); None treats all directions alike.
            lists: Number of lists; four times the root of N when absent.
            seed: Seed of k-means.

        Raises:
            UserError: There are fewer items than lists.
        """
        count, width = vectors.shape
        lists = lists or max(1, min(count, round(_LISTS_PER_ROOT * count**0.5)))
        if lists > count:
            raise UserError(
                "An inverted index needs at least one item per list.",
                received=f"{lists} lists for {count} items",
                fix="lower retrieval.index.lists, or leave it out",
            )
        root, inverse = np.eye(width), np.eye(width)
        if queries is not None and len(queries):
            asked = np.asarray(queries, np.float64)
            values, axes = np.linalg.eigh(asked.T @ asked / len(asked))
            scale = np.sqrt(np.maximum(values, max(_FLOOR * values[-1], 1e-12)))
            root, inverse = axes * scale @ axes.T, axes / scale @ axes.T
        metric = root.astype(np.float32)
        moved = vectors @ metric
        centers = kmeans(moved, lists, seed=seed)
        sample = np.random.default_rng(seed).permutation(count)[:_SAMPLE]
        _, squared = nearest_centroids(moved[sample], centers, 1)
        return cls((centers @ inverse).astype(np.float32), metric, lists, float(squared.mean()))

    def tuned(
        self,
        vectors: np.ndarray,
        list_of: np.ndarray,
        queries: np.ndarray,
        *,
        k: int,
        recall: float,
    ) -> Partition:
        """The same with the fewest probes that find a share of the exact k best.

        Args:
            vectors: Items, (N, d).
            list_of: Their lists, (N,).
            queries: Queries to tune on, (Q, d); some of them are read.
            k: Items wanted.
            recall: Share of them that must lie in the probed lists, mean over queries.
        """
        lists = len(self.centroids)
        k = min(k, len(vectors))
        hits = np.zeros(lists, np.int64)  # how many of the best lie in the list of each rank
        sample = queries[:_TUNING]
        for start in range(0, len(sample), _BLOCK):
            block = sample[start : start + _BLOCK]
            best = np.argpartition(-(block @ vectors.T), k - 1, axis=1)[:, :k]  # (Q, k)
            order = np.argsort(-(block @ self.centroids.T), axis=1, kind="stable")
            rank = np.empty_like(order)
            np.put_along_axis(rank, order, np.arange(lists)[None, :], axis=1)
            ranks = np.take_along_axis(rank, list_of[best], axis=1)
            hits += np.bincount(ranks.ravel(), minlength=lists)
        share = np.cumsum(hits) / max(hits.sum(), 1)
        return replace(self, probes=int(np.searchsorted(share, recall - 1e-12)) + 1)

    def save(self, path: Path) -> None:
        """Writes a `.npz` file."""
        numbers = {"probes": np.array(self.probes), "distortion": np.array(self.distortion)}
        write_arrays(path, {"centroids": self.centroids, "metric": self.metric, **numbers})

    @classmethod
    def load(cls, path: Path) -> Partition:
        """Reads what `save` wrote."""
        with np.load(path) as stored:
            return cls(
                stored["centroids"],
                stored["metric"],
                int(stored["probes"]),
                float(stored["distortion"]),
            )
