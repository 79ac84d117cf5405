"""Numbers in float64 with the sums of the magnitudes of the terms that they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

TOLERANCE = 1e-5
"""What a float32 computation may be off by, relative to the sum of the terms' magnitudes."""


@dataclass(frozen=True)
class Terms:
    """Values and how much a relative change of all that they are made of could move them.

    Attributes:
        value: The numbers, float64.
        size: Sum of their terms' magnitudes, of the same shape.
    """

    value: np.ndarray
    size: np.ndarray

    @classmethod
    def of(cls, value: Any) -> Terms:
        """Given numbers."""
        numbers = np.asarray(value, np.float64)
        return cls(numbers, np.abs(numbers))

    @classmethod
    def joined(cls, parts: Sequence[Terms]) -> Terms:
        """Columns side by side."""
        values, sizes = ([getattr(p, name) for p in parts] for name in ("value", "size"))
        return cls(np.concatenate(values, axis=-1), np.concatenate(sizes, axis=-1))

    def __add__(self, other: Terms) -> Terms:
        """Element by element."""
        return Terms(self.value + other.value, self.size + other.size)

    def __mul__(self, other: Terms) -> Terms:
        """Element by element."""
        return Terms(self.value * other.value, self.size * other.size)

    def affine(self, kernel: Any, bias: Any) -> Terms:
        """x W + b."""
        w, b = np.asarray(kernel, np.float64), np.asarray(bias, np.float64)
        return Terms(self.value @ w + b, self.size @ np.abs(w) + np.abs(b))

    def relu(self) -> Terms:
        """max(x, 0)."""
        return Terms(np.maximum(self.value, 0), self.size)

    def gate(self) -> Terms:
        """2 sigmoid(x), of a slope of 1/2 at most."""
        value = 2 / (1 + np.exp(-self.value))
        return Terms(value, value + self.size / 2)

    def holds(self, found: Any, what: str = "") -> None:
        """Fails unless a float32 computation of the same numbers is near."""
        numbers = np.asarray(found, np.float64)
        assert numbers.shape == self.value.shape, (what, numbers.shape, self.value.shape)
        far = np.abs(numbers - self.value) / np.maximum(self.size, 1e-30)
        assert far.max() <= TOLERANCE, f"{what}: {far.max():.2g} of the terms' magnitudes apart"
