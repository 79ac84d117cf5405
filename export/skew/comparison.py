"""What one feature is offline and served, row by row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class SkewComparison:
    """The rows in which a feature differs.

    Attributes:
        name: The feature, representation, raw column or task.
        kind: Its kind in the spec, or `representation`, `scenario`, `raw column`, `score`.
        rows: Rows compared.
        differing: Rows that differ.
        row: Number of the first one, None without one.
        offline, served: Its values as text.
        reason: Why they may differ.
        largest: Largest difference of numbers, None for ids.
    """

    name: str
    kind: str
    rows: int
    differing: int
    row: int | None = None
    offline: str = ""
    served: str = ""
    reason: str = ""
    largest: float | None = None

    def __str__(self) -> str:
        return (
            f"{self.kind if self.kind in _OWN_WORD else 'feature'} '{self.name}': "
            f"{self.differing:,} of {self.rows:,} rows differ, first row {self.row}: "
            f"offline {self.offline}, served {self.served}"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values for the report."""
        return dict(vars(self))


_OWN_WORD = ("representation", "raw column", "score")


def ids_differ(offline: np.ndarray, served: np.ndarray) -> np.ndarray:
    """Rows whose ids are not the same, (B,) or (B, L) each -> (B,) bool."""
    return np.asarray((offline != served).reshape(len(offline), -1).any(axis=1))  # (B, L) -> (B,)


def numbers_apart(
    offline: np.ndarray, served: np.ndarray, allowed: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How far each row's numbers are apart.

    Args:
        offline, served: (B,) or (B, W).
        allowed: What they may differ, of the same shape.

    Returns:
        Whether a row differs by more than that, (B,) bool, and its largest difference, (B,)
        float64, infinite where one of them is no number.
    """
    apart = np.abs(offline.astype(np.float64) - served.astype(np.float64))
    apart = np.where(np.isfinite(apart), apart, np.inf)
    beyond = np.asarray((apart > allowed).reshape(len(apart), -1).any(axis=1))  # -> (B,)
    return beyond, apart.reshape(len(apart), -1).max(axis=1, initial=0.0)


def padded(
    values: np.ndarray, splits: np.ndarray, rows: slice, fill: float, width: int = 0
) -> np.ndarray:
    """The lists of some rows as a matrix (B, L) of at least `width` columns."""
    row_splits = splits[rows.start : rows.stop + 1]
    lengths = np.diff(row_splits)
    matrix = np.full((len(lengths), max(width, int(lengths.max(initial=0)))), fill, values.dtype)
    matrix[np.arange(matrix.shape[1]) < lengths[:, np.newaxis]] = values[
        row_splits[0] : row_splits[-1]
    ]
    return matrix


def same_width(matrix: np.ndarray, width: int, fill: float) -> np.ndarray:
    """A matrix (B, L) padded to at least `width` columns."""
    missing = width - matrix.shape[1]
    return matrix if missing <= 0 else np.pad(matrix, ((0, 0), (0, missing)), constant_values=fill)
