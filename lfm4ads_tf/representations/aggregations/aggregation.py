"""How the events of a key become one vector."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from lfm4ads_tf.representations.aggregations.event_groups import EventGroups


@dataclass(frozen=True)
class Fold:
    """What new events do to the states of their keys.

        S <- fade S + sum_n weight_n v_n      W <- fade W + sum_n weight_n

    It does not depend on the vectors v, so that one fold serves every layer.

    Attributes:
        weight: Of each event, (N,) float64.
        fade: Of each touched key, (K',) float64.
        mark: The touched keys' new marks, (K',) float64.
    """

    weight: np.ndarray
    fade: np.ndarray
    mark: np.ndarray


class Aggregation(ABC):
    """A weighted sum of a key's events, kept as a mergeable state (S, W, mark).

    Attributes:
        empty: Mark of a key without events.
        normed_sum: Whether layer normalisation is of the sum S itself instead of the mean S / W.
    """

    empty: float = 0.0
    normed_sum: bool = False

    @abstractmethod
    def fold(self, mark: np.ndarray, events: EventGroups, time: np.ndarray) -> Fold:
        """How events enter the states.

        Args:
            mark: Marks of the touched keys, (K',).
            events: The events.
            time: Their times, (N,).
        """

    @abstractmethod
    def join(self, mark: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, ...]:
        """How two states of the same keys become one.

        Args:
            mark: Marks of the one state, (K',).
            other: Marks of the other, which is the later one where the order matters, (K',).

        Returns:
            Factor of the one, factor of the other, mark of both together, (K',) each.
        """
