"""Adam and AdamW that step a row only when it is touched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import tensorflow as tf

from lfm4ads_tf.optim.rules.checks import require_number
from lfm4ads_tf.optim.rules.rule import RowRule
from lfm4ads_tf.optim.rules.slot import Slot
from lfm4ads_tf.optim.rules.variant import RuleVariant


@dataclass(frozen=True)
class LazyAdam(RowRule):
    """Adam per row and set, with a step count of its own; with decoupled decay it is AdamW.

        t <- t + 1
        m <- b1 m + (1 - b1) g,  v <- b2 v + (1 - b2) g^2
        w <- w - learning_rate * weight_decay * w
        w <- w - learning_rate * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + epsilon)

    Lazy means that time passes for a set only when it is touched: its moments do not decay, its
    weights neither move nor shrink, and t counts its touches, in between. A set that is touched at
    every step is updated exactly as by dense Adam; one touched rarely averages over its own last
    1 / (1 - b) touches instead of over the last steps of the run, and its first touches get
    the full bias correction however late they come.

    t is a float32, exact up to 2^24 touches, where it stops; both corrections are 1 long before.

    Slots: `first_moment` m and `second_moment` v, (U, K, D); `step` t, (U, K, 1).

    Sources: Kingma and Ba, ICLR 2015, section 2, with epsilon outside the bias correction;
    Loshchilov and Hutter, ICLR 2019, algorithm 2, with the decay scaled by the learning rate.

    Args:
        beta_1: Decay b1 of the first moment per touch; in [0, 1).
        beta_2: Decay b2 of the second moment per touch; in [0, 1).
        epsilon: Added to the root of v, in gradients; above 0.
        weight_decay: Share of a weight taken off per touch and unit of learning rate; 0 or more.

    Raises:
        UserError: An option is out of its bounds.
    """

    name: ClassVar[str] = "adam"
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        require_number(self.name, "beta_1", self.beta_1, at_least=0.0, below=1.0)
        require_number(self.name, "beta_2", self.beta_2, at_least=0.0, below=1.0)
        require_number(self.name, "epsilon", self.epsilon, above=0.0)
        require_number(self.name, "weight_decay", self.weight_decay, at_least=0.0)

    @property
    def compiled_options(self) -> Sequence[float]:
        """See `RowRule`."""
        return (self.beta_1, self.beta_2, self.epsilon, self.weight_decay)

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The moments m and v and the count t."""
        return (
            Slot("first_moment", per_element=True, initial=0.0),
            Slot("second_moment", per_element=True, initial=0.0),
            Slot("step", per_element=False, initial=0.0),
        )

    def update(
        self,
        weights: tf.Tensor,
        slots: tuple[tf.Tensor, ...],
        gradient: tf.Tensor,
        learning_rate: tf.Tensor,
    ) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        """One step; shapes as in `RowRule.update`."""
        first, second, step = slots
        # 1 - b is taken after b is rounded: then (1 - b) and 1 - b^t agree at the first touch,
        # where they must cancel.
        beta_1 = tf.constant(self.beta_1, tf.float32)
        beta_2 = tf.constant(self.beta_2, tf.float32)
        step = step + 1.0  # (U, K, 1)
        first = beta_1 * first + (1.0 - beta_1) * gradient
        second = beta_2 * second + (1.0 - beta_2) * tf.square(gradient)
        if self.weight_decay:
            weights = weights - learning_rate * self.weight_decay * weights
        correction_1 = -tf.math.expm1(step * _log(self.beta_1))
        correction_2 = -tf.math.expm1(step * _log(self.beta_2))
        size = learning_rate * tf.sqrt(correction_2) / correction_1  # (U, K, 1)
        weights = weights - size * first / (tf.sqrt(second) + self.epsilon)
        return weights, (first, second, step)


ADAMW = RuleVariant(LazyAdam, defaults={"weight_decay": 0.01})


def _log(beta: float) -> float:
    """log b of the rounded b: 1 - b^t = -expm1(t log b), without the cancellation of 1 - pow."""
    rounded = float(np.float32(beta))
    return math.log(rounded) if rounded else -math.inf
