"""Encoded rows as a sparse matrix: one-hot ids, pooled bags, standardised numbers."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from lfm4ads_tf.data.cache import EncodedCache, Refresh

_BLOCK = 65_536


class SparseTable:
    """What the upstream reads of a row, for linear models.

    One column per id of a single-valued feature and one for a missing id, per scenario, per id of
    a bag (the weight of the id, without weights its count, over the sum of the row's) and per
    number of a dense feature, as deviations from the training rows' mean.

    Args:
        cache: The encoded cache.
        branches: Whether the upstream is told ads from content.
    """

    def __init__(self, cache: EncodedCache, *, branches: bool = False) -> None:
        self._cache, self._branches = cache, branches
        layout = cache.layout
        rows = {table.name: table.rows for table in layout.tables}
        sizes = [rows[field.table] + 1 for field in layout.single]
        sizes += [len(layout.scenarios) + 1] + ([2] if branches else [])
        sizes += [rows[field.table] for field in layout.bags]
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.width = int(self._starts[-1]) + layout.dense_width
        self._mean, self._scale = self._moments()

    def take(self, rows: np.ndarray, refresh: Refresh = "frozen") -> sparse.csr_matrix:
        """The values of some rows in ascending order, (R, C) float32."""
        parts = [
            self._block(rows[start : start + _BLOCK], refresh)
            for start in range(0, len(rows), _BLOCK)
        ]
        if not parts:
            return sparse.csr_matrix((0, self.width), dtype=np.float32)
        return sparse.vstack(parts, format="csr")

    def _block(self, rows: np.ndarray, refresh: Refresh) -> sparse.csr_matrix:
        batch = self._cache.take(rows, refresh)
        codes = [batch["ids"] + 1, batch["scenario"][:, np.newaxis] + 1]
        if self._branches:
            codes.append(batch["branch"][:, np.newaxis])
        one_hot = np.concatenate(codes, axis=1)  # (R, K)
        single = one_hot + self._starts[: one_hot.shape[1]]
        row = [np.repeat(np.arange(len(rows)), single.shape[1])]
        column, value = [single.ravel()], [np.ones(single.size, np.float32)]
        for k, field in enumerate(self._cache.layout.bags, start=single.shape[1]):
            bag = batch["bags"][field.name]
            of = np.repeat(np.arange(len(rows)), np.diff(bag.splits))
            weights = np.ones(len(of)) if bag.weights is None else np.abs(bag.weights)
            total = np.bincount(of, weights, minlength=len(rows))
            row.append(of)
            column.append(bag.values + self._starts[k])
            value.append((weights / np.maximum(total[of], 1e-12)).astype(np.float32))
        dense = (batch["dense"] - self._mean) / self._scale
        row.append(np.repeat(np.arange(len(rows)), dense.shape[1]))
        column.append(np.tile(np.arange(dense.shape[1]) + self._starts[-1], len(rows)))
        value.append(dense.ravel())
        places = (np.concatenate(row), np.concatenate(column))
        shape = (len(rows), self.width)
        return sparse.csr_matrix((np.concatenate(value), places), shape, dtype=np.float32)

    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of every number over the training rows; 1 for a constant."""
        total = np.zeros(self._cache.layout.dense_width)
        squares = total.copy()
        train = self._cache.train_rows
        for start in range(0, len(train), _BLOCK):
            dense = self._cache.take(train[start : start + _BLOCK])["dense"].astype(np.float64)
            total += dense.sum(axis=0)
            squares += (dense**2).sum(axis=0)
        mean = total / len(train)
        deviation = np.sqrt(np.maximum(squares / len(train) - mean**2, 0.0))
        deviation[deviation < 1e-6] = 1.0
        return mean.astype(np.float32), deviation.astype(np.float32)
