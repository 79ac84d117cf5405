"""The plain mean."""

from __future__ import annotations

import numpy as np

from lfm4ads_tf.representations.aggregations.aggregation import Aggregation, Fold
from lfm4ads_tf.representations.aggregations.event_groups import EventGroups


class Mean(Aggregation):
    """S = sum_n v_n; the mark is the count of events. States merge in any order."""

    def fold(self, mark: np.ndarray, events: EventGroups, time: np.ndarray) -> Fold:
        """See `Aggregation.fold`; `time` is not read."""
        return Fold(np.ones(len(events.index)), np.ones(len(mark)), mark + events.lengths)

    def join(self, mark: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, ...]:
        """See `Aggregation.join`."""
        return np.ones_like(mark), np.ones_like(other), mark + other
