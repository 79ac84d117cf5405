"""Whether held-out rows see later training rows, and what they see of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np

from lfm4ads_tf.data.splits import AUXILIARY, TEST, TRAIN, VALID

_LOG = logging.getLogger(__name__)


class PointInTime:
    """The order of a data set's rows and splits.

    A row is later than another if its period is, or its time within one period; rows of one time
    are not later than each other.

    Args:
        period: (N,) int; -1 precedes all.
        time: Event time, (N,).
        split: (N,), see `lfm4ads_tf.data.splits`.

    Attributes:
        seen: Moving feature -> held-out rows that count later training events in it, and the most
            such events of one row; what `add` counted.
    """

    def __init__(self, period: np.ndarray, time: np.ndarray, split: np.ndarray) -> None:
        order = np.lexsort((time, period))
        later = (np.diff(period[order]) != 0) | (np.diff(time[order]) != 0)
        self._rank = np.empty(len(order), np.int64)
        self._rank[order] = np.concatenate([[0], np.cumsum(later)])
        self._train = split == TRAIN
        self._trained = self._train | (split == AUXILIARY)
        self._held_out = np.isin(split, (VALID, TEST))
        self._last = int(self._rank[self._train].max())
        self.seen: dict[str, tuple[int, int]] = {}

    @property
    def holds(self) -> bool:
        """Whether no training row is later than any held-out row."""
        return bool((self._rank[self._held_out] >= self._last).all())

    def flags(self, rows: Mapping[str, np.ndarray]) -> dict[str, bool]:
        """Whether no training row, of whatever scenario, is later than a held-out one of a set.

        Args:
            rows: Name -> whether a row is in the set, (N,) bool.

        Returns:
            Name -> flag, of the sets with held-out rows.
        """
        found = {}
        for name, chosen in rows.items():
            own = self._rank[chosen & self._held_out]
            if len(own):
                found[name] = bool(own.min() >= self._last)
        return found

    def add(self, name: str, key: np.ndarray, event: np.ndarray, last: int | None = None) -> None:
        """Counts what the held-out rows see of later training rows in a moving feature.

        They see every training event of their key, or the last ones.

        Args:
            name: The feature, for the message.
            key: Code of the row's key, (N,) int64; -1 is a missing key, which sees nothing.
            event: Whether a row is an event of the feature, (N,) bool.
            last: Events that a row sees at most, None for all.
        """
        if self.holds:
            return
        key = key.astype(np.int64)
        # only rows before the last training row can see a later one
        asks = np.flatnonzero(self._held_out & (self._rank < self._last) & (key >= 0))
        if not len(asks):
            self.seen[name] = 0, 0
            return
        behind = self._rank > self._rank[asks].min()
        own = np.flatnonzero(event & self._trained & behind & (key >= 0))
        span = int(self._rank.max()) + 1
        events = np.sort(key[own] * span + self._rank[own])
        # The events of a key behind a row lie between the row's place and the next key's.
        after = np.searchsorted(events, (key[asks] + 1) * span) - np.searchsorted(
            events, key[asks] * span + self._rank[asks], side="right"
        )
        after = after if last is None else np.minimum(after, last)
        self.seen[name] = int((after > 0).sum()), int(after.max(initial=0))

    def warn(self, flags: Mapping[str, bool]) -> None:
        """Says which sets see later training rows, in numbers, and how to mend it.

        Args:
            flags: What `flags` gave.
        """
        named = [name for name, flag in flags.items() if not flag]
        if not named:
            return
        first = int(self._rank[self._held_out].min())
        later = int((self._rank[self._train] > first).sum())
        ranks = self._rank[self._held_out]
        seen = [
            f"{name} of {rows} rows (up to {most} events of a row)"
            for name, (rows, most) in self.seen.items()
            if rows
        ]
        _LOG.warning(
            "not point in time (%s): %d of %d training rows are later than the first valid or test "
            "row, and %d of %d valid and test rows earlier than the last training row. %sTheir "
            "results are upper bounds; to hold back what is later than all training rows, split "
            "by time: `split: {by: <a column that grows with time>, train_until: ..., "
            "valid_until: ...}`, or `{per: all, by: time, fractions: ...}`",
            ", ".join(named),
            later,
            int(self._train.sum()),
            int((ranks < self._last).sum()),
            len(ranks),
            f"Statistics and event sequences count training events later than the row itself: "
            f"{', '.join(seen)}. "
            if seen
            else "",
        )
