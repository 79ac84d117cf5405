"""Decay with every event of the key."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np

from lfm4ads_tf.representations.aggregations.aggregation import Aggregation, Fold
from lfm4ads_tf.representations.aggregations.event_groups import EventGroups
from lfm4ads_tf.representations.config import RepresentationsConfig
from lfm4ads_tf.representations.names import Side


class CountDecay(Aggregation):
    """S <- decay S + v per event of the key, in time order; the mark is the count of events.

    States merge if they are of consecutive stretches of the log, the earlier one first.

    Args:
        decay: Factor per event.

    Source: the public code of LFM4Ads (arXiv 2508.14948), which layer-normalises S itself.
    """

    normed_sum: ClassVar[bool] = True

    def __init__(self, decay: float) -> None:
        self.decay = decay

    @classmethod
    def create(cls, config: RepresentationsConfig, options: Any, side: Side) -> Self:
        """See `Aggregation.create`; reads `decay`."""
        return cls(config.decay)

    def fold(self, mark: np.ndarray, events: EventGroups, time: np.ndarray) -> Fold:
        """See `Aggregation.fold`; `time` is not read."""
        later = events.lengths[events.index] - 1 - events.rank
        fade = np.power(self.decay, events.lengths.astype(np.float64))
        return Fold(np.power(self.decay, later.astype(np.float64)), fade, mark + events.lengths)

    def join(self, mark: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, ...]:
        """See `Aggregation.join`."""
        return np.power(self.decay, other), np.ones_like(other), mark + other
