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
        order: Events by key, those of a key in their order, (N,).
        starts: Where each key's events begin in `order`, (K',).
    """

    def __init__(self, key: np.ndarray) -> None:
        self.order = by_key(key)
        ordered = key[self.order]
        self.starts = np.flatnonzero(
            np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(key)]
        )
        self.keys = ordered[self.starts]
        self.lengths = np.diff(self.starts, append=len(key))
        self.index = np.empty(len(key), np.int64)
        self.index[self.order] = np.repeat(np.arange(len(self.keys)), self.lengths)

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


def by_key(key: np.ndarray) -> np.ndarray:
    """Events by key, those of a key in their order.

    Args:
        key: Code of each event's key, (N,) integer, not negative.
    """
    if len(key) and int(key.max()) <= np.iinfo(np.uint16).max:
        key = key.astype(np.uint16)  # NumPy sorts it by radix, ten times as fast
    return np.argsort(key, kind="stable")
