"""Information abundance: how much of its width a table of embeddings uses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lfm4ads_tf.errors import UserError

Blocks = Callable[[], Iterable[NDArray[Any]]]
"""Reads a table (n, d) anew: its rows in order, in blocks (m, d) of any size."""

_ROWS = 8192  # rows that are multiplied at once: few products, for each wakes BLAS' threads
_RATIO = 2e-2  # of the largest singular value: what is smaller is read again
_FLOOR = _RATIO**2  # of the table's largest one: what is left then is not


def information_abundance(table: ArrayLike) -> float | None:
    """How many directions a table's rows spread over, those of little spread counting in part.

    `IA(E) = sum_i s_i / max_i s_i` over the singular values s of E, the rows as they are (no mean
    is taken off). `1 <= IA <= min(n, d)`: 1 where all rows are multiples of one, d where they
    spread alike in all directions. It does not change when E is scaled or its columns are rotated.

    The singular values are the roots of the eigenvalues of the Gram matrix `E^T E`, summed in
    float64 over blocks of rows, so beside the table memory holds one block and matrices (d, d).

    A Gram matrix in rounding u = 2^-53 gives its eigenvalues up to `a s_1^2`, `a = (b + n / b) d u`
    with b rows a product: a root s_i up to `a s_1^2 / s_i`, but only up to `sqrt(a) s_1` near 0,
    which sums to more than 1e-6 where many directions have collapsed. So singular values below
    `r = 1/50` of the largest are not taken from it: the rows are rotated into those directions
    alone, a table as small as they are, whose Gram matrix is taken likewise, at most twice. (`E V`
    has the singular values of E; that the two parts are orthogonal up to rounding alone moves them
    by at most `a s_1 / r`.) The error of IA is thus at most `d (3 a / (2 r) + r^2 sqrt(a))`, which
    is 5e-7 for a million rows of width 64; most roundings cancel, and it is near 1e-12.

    Args:
        table: (n, d) finite numbers.

    Returns:
        A value in [1, min(n, d)], or None for a table without rows or of zeros alone: it has no
        direction.

    Raises:
        UserError: for another shape, a table without columns, or a number that is not finite.

    Source: Guo et al., On the Embedding Collapse When Scaling Up Recommendation Models (ICML 2024,
    arXiv 2310.04400), definition of information abundance.
    """
    values = np.asarray(table)
    if values.ndim != 2 or not values.shape[1] or values.dtype.kind in "cOSUMm":
        raise UserError(
            "Information abundance is of a matrix of real numbers.",
            received=f"shape {values.shape}, {values.dtype}",
            fix="pass one row per embedding, (n, d)",
        )
    return set_abundances(lambda: [values], 1, values.shape[1])[1]


def set_abundances(blocks: Blocks, sets: int, dim: int) -> tuple[list[float | None], float | None]:
    """Information abundance of every set of a table, and of all sets side by side.

    The table is read once, or up to three times where directions have collapsed, for all sets
    together; see `information_abundance`.

    Args:
        blocks: Reads the table, (n, K D) in blocks of rows: set k is columns k D to (k + 1) D.
        sets: K.
        dim: D.

    Returns:
        IA of each set, K values of at most min(n, D), and that of the table as a whole, at most
        min(n, K D); None as in `information_abundance`.

    Raises:
        UserError: A number is not finite.
    """
    rows, gram, exponent = _gram(blocks, sets * dim)
    spectra = [_Spectrum(gram, slice(k * dim, (k + 1) * dim)) for k in range(sets)]
    spectra += [_Spectrum(gram, slice(0, sets * dim))] if sets > 1 else []
    unresolved = [spectrum for spectrum in spectra if spectrum.split()]
    while unresolved:
        for piece in _pieces(blocks):
            scaled = np.ldexp(piece, -exponent)
            for spectrum in unresolved:
                spectrum.add(scaled)
        unresolved = [spectrum for spectrum in unresolved if spectrum.split()]
    found = [spectrum.abundance(rows) for spectrum in spectra]
    return found[:sets], found[-1]


class _Spectrum:
    """Singular values of some columns of a table, the largest first.

    Args:
        gram: Gram matrix of the whole table.
        columns: The columns.
    """

    def __init__(self, gram: NDArray[np.float64], columns: slice) -> None:
        self._columns = columns
        self._gram = gram[columns, columns]  # (d, d)
        self._basis = np.eye(len(self._gram))  # the directions that it is of
        self._values: list[float] = []

    def split(self) -> bool:
        """Takes what the Gram matrix tells well; returns whether smaller ones are left to read."""
        squares, vectors = np.linalg.eigh(self._gram)  # ascending
        roots = np.sqrt(np.maximum(squares, 0.0))
        few = roots < _RATIO * roots[-1]
        if not few.any() or self._values and roots[-1] <= _FLOOR * self._values[0]:
            few[:] = False
        self._values += roots[~few][::-1].tolist()
        self._basis = self._basis @ vectors[:, few]  # (d, m)
        self._gram = np.zeros((self._basis.shape[1],) * 2)
        return bool(few.any())

    def add(self, rows: NDArray[np.float64]) -> None:
        """Adds rows (m, K D) of the table to the Gram matrix of the directions that are left."""
        turned = rows[:, self._columns] @ self._basis
        self._gram += turned.T @ turned

    def abundance(self, rows: int) -> float | None:
        """IA once `split` has returned False."""
        # a matrix of n rows has n of them; further ones are what rounding left of zeros
        values = sorted(self._values, reverse=True)[:rows]
        if not rows or not values[0]:
            return None
        return min(math.fsum(values) / values[0], float(len(values)))


def _gram(blocks: Blocks, width: int) -> tuple[int, NDArray[np.float64], int]:
    """Rows n, the Gram matrix (d, d) of the table over 2^exponent, and the exponent.

    The power of two keeps squares inside of the range of float64 and changes no digit.
    """
    rows, exponent = 0, -2000  # below that of any number
    gram = np.zeros((width, width))
    for piece in _pieces(blocks):
        rows += len(piece)
        largest = float(np.abs(piece).max(initial=0.0))
        if not math.isfinite(largest):
            raise UserError(
                "Information abundance needs finite numbers.",
                received=f"{largest} in a table of width {width}",
                fix="the model has diverged: lower its learning rate or check its numeric inputs",
            )
        if not largest:
            continue
        needed = math.frexp(largest)[1]
        if needed > exponent:
            gram = np.ldexp(gram, 2 * (exponent - needed))
            exponent = needed
        scaled = np.ldexp(piece, -exponent)
        gram += scaled.T @ scaled
    return rows, gram, exponent


def _pieces(blocks: Blocks) -> Iterator[NDArray[np.float64]]:
    """The table in float64, few rows at a time."""
    for block in blocks():
        for start in range(0, len(block), _ROWS):
            yield block[start : start + _ROWS].astype(np.float64)
