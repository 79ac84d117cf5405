"""What the retrieval stage asks for and scores: queries, items, recall."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.data.splits import AUXILIARY, TRAIN
from lfm4ads_tf.metrics import recall_at_k

ALL = "all"
_USERS_AT_ONCE = 2048


@dataclass(frozen=True)
class Queries:
    """Users of a split with at least one positive there.

    Attributes:
        rows: The user's first row in the split, (U,).
        relevant, splits: Item codes of the user's positives, flat, and row splits (U + 1,).
    """

    rows: np.ndarray
    relevant: np.ndarray
    splits: np.ndarray

    @classmethod
    def of(cls, cache: EncodedCache, split: str, scenario: str, column: int) -> Queries:
        """The queries of a split within one scenario, or within all.

        Args:
            cache: The encoded cache.
            split: `valid` or `test`.
            scenario: A scenario, or `all`.
            column: Column of the labels that makes an item relevant.
        """
        rows = rows_of(cache, split, scenario)
        users, first = np.unique(cache.user[rows], return_index=True)
        hits = rows[cache.labels[rows, column] == 1]
        pairs = np.unique(np.stack([cache.user[hits], cache.item[hits]], axis=1), axis=0)  # (P, 2)
        counts = np.bincount(np.searchsorted(users, pairs[:, 0]), minlength=len(users))
        kept = counts > 0
        splits = np.concatenate([[0], np.cumsum(counts[kept])])
        return cls(rows[first[kept]], pairs[:, 1], splits)


@dataclass(frozen=True)
class Candidates:
    """The items that can be retrieved.

    Attributes:
        codes: Item codes in ascending order, (I,).
        rows: Row that each item's features are read from, (I,): its last training or auxiliary
            row, so that no later value is seen; an item without one has its first later row.
    """

    codes: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, cache: EncodedCache) -> Candidates:
        """All items of the log."""
        chosen = np.full(int(cache.item.max()) + 1, -1, np.int64)
        known = np.isin(cache.split, (TRAIN, AUXILIARY))
        later = np.flatnonzero(~known)[::-1]
        chosen[cache.item[later]] = later  # the first in time is written last
        earlier = np.flatnonzero(known)
        chosen[cache.item[earlier]] = earlier
        codes = np.flatnonzero(chosen >= 0)
        return cls(codes, chosen[codes])


class SeenItems:
    """The items that each user need not be shown again: the user's training positives.

    Args:
        cache: The encoded cache.
        column: Column of the labels that makes an item a positive.
        exclude: False where repeats count: then no item is left out.
    """

    def __init__(self, cache: EncodedCache, column: int, *, exclude: bool = True) -> None:
        chosen = (cache.split == TRAIN) & (cache.labels[:, column] == 1) & exclude
        positives = np.flatnonzero(chosen)
        order = np.argsort(cache.user[positives], kind="stable")
        self._users = cache.user[positives][order]
        self._items = cache.item[positives][order]

    def of(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Position in `users` and item code of every pair, flat."""
        low = np.searchsorted(self._users, users)
        high = np.searchsorted(self._users, users, side="right")
        rows = np.repeat(np.arange(len(users)), high - low)
        pieces = [self._items[a:b] for a, b in zip(low, high, strict=True)]
        return rows, np.concatenate([np.zeros(0, np.int64), *pieces]).astype(np.int64)


def rows_of(cache: EncodedCache, split: str, scenario: str) -> np.ndarray:
    """Rows of a split, of one scenario or of `all`."""
    return cache.rows_of(split, None if scenario == ALL else scenario)


def recall(
    cache: EncodedCache,
    queries: Queries,
    users: np.ndarray,
    codes: np.ndarray,
    items: np.ndarray,
    seen: SeenItems,
    k: int,
) -> float | None:
    """recall@k by exact search; None without a query.

    Args:
        cache: The encoded cache.
        queries: U of them.
        users: Their vectors, (U, d).
        codes: Item codes in ascending order, (I,).
        items: Their vectors, (I, d).
        seen: Items that a user's list leaves out.
        k: Length of the lists.
    """
    if not len(queries.rows):
        return None
    keys = cache.user[queries.rows]
    retrieved = []
    for start in range(0, len(keys), _USERS_AT_ONCE):
        block = slice(start, start + _USERS_AT_ONCE)
        scores = users[block] @ items.T  # (U, I)
        rows, hidden = seen.of(keys[block])
        place = np.minimum(np.searchsorted(codes, hidden), len(codes) - 1)
        held = codes[place] == hidden
        scores[rows[held], place[held]] = -np.inf
        top = tf.math.top_k(scores, k=min(k, len(codes)), sorted=False)
        # -1: an item that is left out, where a user has fewer than k others
        retrieved.append(np.where(np.isinf(top.values), -1, codes[top.indices]))
    return recall_at_k(np.concatenate(retrieved), queries.relevant, queries.splits)
