"""Events grouped by key."""

from __future__ import annotations

from functools import cached_property

import numpy as np


class EventGroups:
    """Events in order, grouped by the key that each belongs to.

    Args:
        key: Code of each event's key, (N,) integer.

    Attributes:
        keys: Distinct codes, ascending, (K',).
        index: Place of each event's key in `keys`, (N,).
        lengths: Events of each key, (K',).
    """

    def __init__(self, key: np.ndarray) -> None:
        self.keys, self.index = np.unique(key, return_inverse=True)
        self.lengths = np.bincount(self.index, minlength=len(self.keys))

    @cached_property
    def order(self) -> np.ndarray:
        """Events by key, those of a key in their order, (N,)."""
        return np.argsort(self.index, kind="stable")

    @cached_property
    def starts(self) -> np.ndarray:
        """Where each key's events begin in `order`, (K',)."""
        return np.cumsum(self.lengths) - self.lengths

    @cached_property
    def rank(self) -> np.ndarray:
        """Number of earlier events of the same key, (N,)."""
        rank = np.empty(len(self.index), np.int64)
        rank[self.order] = np.arange(len(self.index)) - np.repeat(self.starts, self.lengths)
        return rank

    def latest(self, time: np.ndarray) -> np.ndarray:
        """Each key's latest time, (K',)."""
        if not len(time):
            return np.zeros(0)
        return np.maximum.reduceat(time[self.order], self.starts)
