"""Weighted sums of vectors by key, added to a table at a cost that does not grow with it."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csc_array

try:
    from scipy.sparse._sparsetools import csc_matvecs
except ImportError:  # pragma: no cover - not a public name: a later SciPy may lack it
    csc_matvecs = None


class KeySums:
    """Which vectors enter the sum of which key, for vectors of any width.

    A key's vectors are summed among themselves before they are added to the table: a float32 sum
    of few sums loses less than one of many vectors.

    Args:
        key: Key of each vector, (N,) integer.
        weight: Weights, (N,); vectors of weight 0 are not read.
    """

    def __init__(self, key: np.ndarray, weight: np.ndarray) -> None:
        kept = weight != 0  # of `last`, one event a key
        self.keys, index = np.unique(key[kept], return_inverse=True)
        ends = np.concatenate([[0], np.cumsum(kept)])
        entries = (weight[kept].astype(np.float32), index, ends)
        self._matrix = csc_array(entries, shape=(len(self.keys), len(key)))

    def add_to(self, table: np.ndarray, values: np.ndarray) -> None:
        """table[k] <- table[k] + sum of weight_n values_n over the vectors n of key k.

        Args:
            table: (K, d) float32, contiguous.
            values: (N, d) float32.
        """
        add_rows(table, self.keys, self._matrix @ values)  # (K', d)


def add_rows(table: np.ndarray, rows: np.ndarray, values: np.ndarray) -> None:
    """table[rows] <- table[rows] + values, for distinct rows.

    Args:
        table: (K, d) float32, contiguous.
        rows: (M,) integer.
        values: (M, d) float32.
    """
    if csc_matvecs is None:
        table[rows] += values
        return
    # In place, without the two temporary arrays of the line above: in half the time.
    ends = np.arange(len(rows) + 1, dtype=np.int64)
    ones = np.ones(len(rows), np.float32)
    shape = (len(table), len(rows), table.shape[1])
    csc_matvecs(*shape, ends, rows.astype(np.int64), ones, values.reshape(-1), table.reshape(-1))
