"""The public experiment's aggregation of cross representations."""

from __future__ import annotations

import numpy as np
from scipy import sparse


class StaticAggregate:
    """Count-decayed sum of each user's activations over all of the user's events.

        S(u) <- 0.99 S(u) + CR(u, i_n)   for n = 1 .. N_u, from S(u) = 0
        S(u)  = sum_n 0.99^(N_u - n) CR(u, i_n)

    Args:
        user: User of each event in time order, (N,).
        users: Number of users U.
        width: Width d of an activation.
        decay: Factor per event of the user.

    Source: the public experiment of LFM4Ads (arXiv 2508.14948).
    """

    def __init__(self, user: np.ndarray, users: int, width: int, *, decay: float = 0.99) -> None:
        self._user = user
        self._weights = decay ** later_events(user)
        self._sums = np.zeros((users, width), np.float32)

    def add(self, start: int, activations: np.ndarray) -> None:
        """Adds the events from `start` on.

        Args:
            start: Position of the first event.
            activations: (M, d).
        """
        chosen = slice(start, start + len(activations))
        users, column = np.unique(self._user[chosen], return_inverse=True)
        weights = sparse.csr_matrix(
            (self._weights[chosen].astype(np.float32), (column, np.arange(len(column)))),
            shape=(len(users), len(column)),
        )
        self._sums[users] += weights @ activations  # (users, d)

    def read(self) -> np.ndarray:
        """Layer-normalised sums without scale or shift, (U, d); 0 for users without events."""
        centred = self._sums - self._sums.mean(axis=1, keepdims=True)
        variance = np.square(centred).mean(axis=1, keepdims=True)
        return (centred / np.sqrt(variance + 1e-5)).astype(np.float32)


def later_events(user: np.ndarray) -> np.ndarray:
    """How many events of the same user follow each event.

    Args:
        user: User of each event in time order, (N,).

    Returns:
        (N,) int64.
    """
    order = np.argsort(user, kind="stable")
    last = np.searchsorted(user[order], user, side="right") - 1
    position = np.empty(len(user), np.int64)
    position[order] = np.arange(len(user))
    return last - position
