"""FTRL-proximal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import tensorflow as tf

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.optim.rules.checks import require_number
from lfm4ads_tf.optim.rules.rule import RowRule
from lfm4ads_tf.optim.rules.slot import Slot


@dataclass(frozen=True)
class Ftrl(RowRule):
    """Follow the regularized leader with an L1 that makes weights exactly zero.

    With p = -learning_rate_power, 0.5 by default:
        A' = A + g^2
        z <- z + g - (A'^p - A^p) / learning_rate * w
        w <- (clip(z, -l1, l1) - z) / ((A'^p + beta) / learning_rate + 2 l2)
        A <- A'

    A weight is zero while |z| <= l1. `l2` counts twice, as in TensorFlow's `ApplyFtrl`: the
    lambda_2 of the paper is 2 * l2. The learning rate must be above 0; z is measured in its units,
    so a change of the rate between steps rescales how much of the past a weight keeps.

    w follows from A and z alone, and z starts at 0, the state of a weight of 0. A weight with
    another initial value keeps of it, at its first touch, only the share
    (A'^p - A^p) / (A'^p + beta + 2 l2 learning_rate): an `initial` far above the squared gradients
    erases the initial values of a table.

    An untouched row adds nothing to A or z, so at a constant learning rate a row, once touched,
    equals dense FTRL. Dense FTRL also sets the rows that were never touched to 0; this does not.

    Slots: `accumulator` A and `linear` z, (U, K, D).

    Source: McMahan et al., KDD 2013, algorithm 1.

    Args:
        initial: Initial value of A, in squared gradients; 0 or more, and above 0 if neither `l2`
            nor `beta` is, since an element without a gradient would else be 0 / 0.
        l1: Strength of the L1, in gradients; 0 or more.
        l2: Strength of the L2, in gradients per weight; 0 or more.
        learning_rate_power: Exponent of the decay of the step size; 0 or less, and 0 is a
            constant step size.
        beta: Added to A^p, which bounds the first steps; 0 or more.

    Raises:
        UserError: An option is out of its bounds, or the three that keep the quotient defined
            are all 0.
    """

    name: ClassVar[str] = "ftrl"
    initial: float = 0.1
    l1: float = 0.0
    l2: float = 0.0
    learning_rate_power: float = -0.5
    beta: float = 0.0

    def __post_init__(self) -> None:
        require_number(self.name, "l1", self.l1, at_least=0.0)
        require_number(self.name, "learning_rate_power", self.learning_rate_power, at_most=0.0)
        initial, l2, beta = (
            require_number(self.name, option, getattr(self, option), at_least=0.0)
            for option in ("initial", "l2", "beta")
        )
        if self.learning_rate_power and not (initial or l2 or beta):
            raise UserError(
                "The update rule 'ftrl' divides 0 by 0 where an element had no gradient yet.",
                received="initial, l2 and beta are all 0",
                fix="Give 'initial' or 'beta' a value above 0.",
            )

    @property
    def compiled_options(self) -> Sequence[float]:
        """See `RowRule`."""
        return (self.l1, self.l2, self.learning_rate_power, self.beta)

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The accumulator A and the linear term z."""
        return (
            Slot("accumulator", per_element=True, initial=self.initial),
            Slot("linear", per_element=True, initial=0.0),
        )

    def update(
        self,
        weights: tf.Tensor,
        slots: tuple[tf.Tensor, ...],
        gradient: tf.Tensor,
        learning_rate: tf.Tensor,
    ) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        """One step; shapes as in `RowRule.update`."""
        accumulator, linear = slots
        grown = accumulator + tf.square(gradient)
        root, before = self._power(grown), self._power(accumulator)
        linear = linear + (gradient - (root - before) / learning_rate * weights)
        curvature = (root + self.beta) / learning_rate + 2.0 * self.l2
        weights = (tf.clip_by_value(linear, -self.l1, self.l1) - linear) / curvature
        return weights, (grown, linear)

    def _power(self, accumulator: tf.Tensor) -> tf.Tensor:
        # pow(x, 0.5) is slower than sqrt and need not round like it
        if self.learning_rate_power == -0.5:
            return tf.sqrt(accumulator)
        return tf.pow(accumulator, -self.learning_rate_power)
