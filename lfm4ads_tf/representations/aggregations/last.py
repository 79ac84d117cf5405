"""The latest event alone."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from lfm4ads_tf.representations.aggregations.aggregation import Aggregation, Fold
from lfm4ads_tf.representations.aggregations.event_groups import EventGroups


class Last(Aggregation):
    """S = v of the latest event; the mark is its time.

    States merge in any order; of events at the same time the one that was added last stays.
    """

    empty: ClassVar[float] = -np.inf

    def fold(self, mark: np.ndarray, events: EventGroups, time: np.ndarray) -> Fold:
        """See `Aggregation.fold`."""
        latest = events.latest(time)
        candidates = np.flatnonzero(time == latest[events.index])
        chosen = np.zeros(len(latest), np.int64)
        chosen[events.index[candidates]] = candidates  # the last of a key's candidates stays
        newer = latest >= mark
        weight = np.zeros(len(time))
        weight[chosen[newer]] = 1.0
        return Fold(weight, np.where(newer, 0.0, 1.0), np.maximum(latest, mark))

    def join(self, mark: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, ...]:
        """See `Aggregation.join`."""
        newer = other >= mark
        return np.where(newer, 0.0, 1.0), np.where(newer, 1.0, 0.0), np.maximum(mark, other)
