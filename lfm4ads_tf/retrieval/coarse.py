"""Coarse centroids, and the assignment of items to lists of bounded length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_BLOCK = 16384  # rows whose distances are held at once
_CHOICES = 16  # nearest lists that an item tries before it goes wherever there is room


def kmeans(
    vectors: np.ndarray, lists: int, *, seed: int = 0, iterations: int = 10, per_list: int = 64
) -> np.ndarray:
    """Lloyd's algorithm on a sample.

    A centroid that no vector is nearest to moves next to a vector of the fullest list.

    Args:
        vectors: (N, d) float32.
        lists: Centroids L; at most N.
        seed: Seed of the sample and the start.
        iterations: Steps.
        per_list: Sampled vectors per centroid.

    Returns:
        (L, d) float32.

    Source: Lloyd, Least squares quantization in PCM (IEEE Trans. Inf. Theory 1982).
    """
    rng = np.random.default_rng(seed)
    size = min(len(vectors), lists * per_list)
    sample = vectors[np.sort(rng.choice(len(vectors), size, replace=False))]
    centroids = sample[np.sort(rng.choice(size, lists, replace=False))].copy()
    for _ in range(iterations):
        nearest = np.concatenate([np.argmin(d, axis=1) for d in _distances(sample, centroids)])
        counts = np.bincount(nearest, minlength=lists)
        order = np.argsort(nearest, kind="stable")
        filled = np.flatnonzero(counts)
        starts = np.concatenate([[0], np.cumsum(counts[filled])[:-1]])
        sums = np.add.reduceat(sample[order].astype(np.float64), starts, axis=0)
        centroids[filled] = (sums / counts[filled, None]).astype(np.float32)
        empty = np.flatnonzero(counts == 0)
        if len(empty):
            crowded = order[starts[np.argmax(counts[filled])] :][: counts.max()]
            centroids[empty] = sample[rng.choice(crowded, len(empty))]
    return centroids


@dataclass(frozen=True)
class Assignment:
    """Which list each vector is in.

    Attributes:
        lists: (N,) int64.
        displaced: Share of vectors that are not in their nearest list.
        distortion: Mean squared distance to the nearest centroid.
    """

    lists: np.ndarray
    displaced: float
    distortion: float


def assign(vectors: np.ndarray, centroids: np.ndarray, capacity: int) -> Assignment:
    """The list of each vector: the nearest one, or the next that has room.

    Where a list is asked for by more vectors than it has room for, those nearest to its centroid
    get in.

    Args:
        vectors: (N, d) float32.
        centroids: (L, d) float32.
        capacity: Longest list; L times it must be at least N.
    """
    lists = len(centroids)
    nearest, squared = nearest_centroids(vectors, centroids, 1)
    chosen = np.full(len(vectors), -1, np.int64)
    room = np.full(lists, capacity, np.int64)

    def enter(waiting: np.ndarray, wanted: np.ndarray, costs: np.ndarray) -> None:
        """Fills the lists that some vectors ask for."""
        order = np.lexsort((costs, wanted))
        asked = wanted[order]
        first = np.searchsorted(asked, asked)  # where the run of the same list begins
        accepted = order[np.arange(len(order)) - first < room[asked]]
        chosen[waiting[accepted]] = wanted[accepted]
        room[:] -= np.bincount(wanted[accepted], minlength=lists)

    enter(np.arange(len(vectors)), nearest[:, 0], squared[:, 0])
    outside = np.flatnonzero(chosen < 0)
    if len(outside):
        width = min(_CHOICES, lists)
        choices, costs = nearest_centroids(vectors[outside], centroids, width)
        for rank in range(1, width):
            waiting = np.flatnonzero(chosen[outside] < 0)
            enter(outside[waiting], choices[waiting, rank], costs[waiting, rank])
        left = outside[chosen[outside] < 0]
        chosen[left] = np.repeat(np.arange(lists), room)[: len(left)]
    return Assignment(chosen, float(np.mean(chosen != nearest[:, 0])), float(squared.mean()))


def nearest_centroids(
    vectors: np.ndarray, centroids: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centroids of each vector.

    Args:
        vectors: (N, d) float32.
        centroids: (L, d) float32.
        count: Centroids wanted, C <= L.

    Returns:
        Centroids (N, C) int32 in order of distance, and the squared distances (N, C) float32.
    """
    choices = np.empty((len(vectors), count), np.int32)
    costs = np.empty((len(vectors), count), np.float32)
    start = 0
    for block in _distances(vectors, centroids):
        rows = slice(start, start + len(block))
        start += len(block)
        if count == 1:
            near = np.argmin(block, axis=1)[:, None]
        else:
            near = np.argpartition(block, count - 1, axis=1)[:, :count]  # (R, C)
        cost = np.take_along_axis(block, near, axis=1)
        order = np.argsort(cost, axis=1, kind="stable")
        choices[rows] = np.take_along_axis(near, order, axis=1)
        costs[rows] = np.take_along_axis(cost, order, axis=1)
    squared = np.einsum("nd,nd->n", vectors, vectors)
    return choices, np.maximum(costs + squared[:, None], 0.0)


def _distances(vectors: np.ndarray, centroids: np.ndarray) -> Iterator[np.ndarray]:
    """|c|^2 - 2 <x, c>, (R, L) per block of rows: the squared distance less |x|^2."""
    half = -2.0 * centroids.T
    norms = np.einsum("ld,ld->l", centroids, centroids)
    for start in range(0, len(vectors), _BLOCK):
        yield vectors[start : start + _BLOCK] @ half + norms
