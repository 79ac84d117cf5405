"""How the events of a key become one vector."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from lfm4ads_tf.representations.aggregations.event_groups import EventGroups
from lfm4ads_tf.representations.config import RepresentationsConfig
from lfm4ads_tf.representations.names import Side
from lfm4ads_tf.strict import StrictModel


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
        Config: Options of its own, given as `representations.aggregation_options.<name>`.
        empty: Mark of a key without events.
        normed_sum: Whether layer normalisation is of the sum S itself instead of the mean S / W.
    """

    Config: ClassVar[type[StrictModel]] = StrictModel
    empty: ClassVar[float] = 0.0
    normed_sum: ClassVar[bool] = False

    @classmethod
    def create(cls, config: RepresentationsConfig, options: Any, side: Side) -> Self:
        """A new aggregation of a configuration.

        Args:
            config: What all aggregations share.
            options: A `Config` of this class.
            side: Whose keys' events it aggregates.
        """
        return cls()

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
