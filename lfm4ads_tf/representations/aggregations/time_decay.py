"""Decay with time."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np

from lfm4ads_tf.representations.aggregations.aggregation import Aggregation, Fold
from lfm4ads_tf.representations.aggregations.event_groups import EventGroups
from lfm4ads_tf.representations.config import RepresentationsConfig
from lfm4ads_tf.representations.names import Side


class TimeDecay(Aggregation):
    """S(t) = sum_n 2^(-(t - t_n) / h) v_n; the mark is the key's latest time.

    States merge in any order, since every term is faded from its own time to the latest.

    Args:
        half_life: h, in the unit of the times.

    Source: LFM4Ads (arXiv 2508.14948), time-interval decaying aggregation of CR.
    """

    empty: ClassVar[float] = -np.inf

    def __init__(self, half_life: float) -> None:
        self.half_life = half_life

    @classmethod
    def create(cls, config: RepresentationsConfig, options: Any, side: Side) -> Self:
        """See `Aggregation.create`; reads `half_life` and, for items, `item_half_life`."""
        of_items = config.item_half_life if side == "item" else None
        return cls(of_items or config.half_life)

    def fold(self, mark: np.ndarray, events: EventGroups, time: np.ndarray) -> Fold:
        """See `Aggregation.fold`."""
        latest = np.maximum(events.latest(time), mark)
        return Fold(self._fade(latest[events.index] - time), self._fade(latest - mark), latest)

    def join(self, mark: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, ...]:
        """See `Aggregation.join`."""
        latest = np.maximum(mark, other)
        # Any finite time will do for a key that neither state has seen.
        now = np.where(np.isfinite(latest), latest, 0.0)
        return self._fade(now - mark), self._fade(now - other), latest

    def _fade(self, age: np.ndarray) -> np.ndarray:
        """2^(-age / h); 0 for a key without events, whose age is infinite."""
        return np.exp2(-age / self.half_life)
