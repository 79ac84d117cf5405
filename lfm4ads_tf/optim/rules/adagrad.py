"""Adagrad, per element or per row and set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import tensorflow as tf

from lfm4ads_tf.optim.rules.checks import require_flag, require_number
from lfm4ads_tf.optim.rules.rule import RowRule
from lfm4ads_tf.optim.rules.slot import Slot
from lfm4ads_tf.optim.rules.variant import RuleVariant


@dataclass(frozen=True)
class Adagrad(RowRule):
    """Step sizes that fall with the squared gradients a row has seen.

        A <- A + g^2                      (row_wise: A <- A + mean of g^2 over a set's D floats)
        w <- w - learning_rate * g / (sqrt(A) + epsilon)

    An untouched row adds nothing to A, so the rule equals dense Adagrad on every row.

    Slots: `accumulator`, (U, K, D), or (U, K, 1) with `row_wise`.

    Sources: Duchi et al., JMLR 2011, the diagonal form; Mudigere et al., ISCA 2022 (`row_wise`).

    Args:
        initial: Initial value of A, in squared gradients; 0 or more.
        epsilon: Added to the root of A, in gradients; above 0.
        row_wise: One float of A per row and set instead of one per element.

    Raises:
        UserError: An option is out of its bounds.
    """

    name: ClassVar[str] = "adagrad"
    shorthands: ClassVar[Mapping[str, str]] = {"initial": "adagrad_initial"}
    initial: float = 0.1
    epsilon: float = 1e-7
    row_wise: bool = False

    def __post_init__(self) -> None:
        require_number(self.name, "initial", self.initial, at_least=0.0)
        require_number(self.name, "epsilon", self.epsilon, above=0.0)
        require_flag(self.name, "row_wise", self.row_wise)

    @property
    def compiled_options(self) -> Sequence[float]:
        """See `RowRule`."""
        return (self.epsilon, float(self.row_wise))

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The accumulator A."""
        return (Slot("accumulator", per_element=not self.row_wise, initial=self.initial),)

    def update(
        self,
        weights: tf.Tensor,
        slots: tuple[tf.Tensor, ...],
        gradient: tf.Tensor,
        learning_rate: tf.Tensor,
    ) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        """One step; shapes as in `RowRule.update`."""
        (accumulator,) = slots
        squares = tf.square(gradient)  # (U, K, D)
        if self.row_wise:
            squares = tf.reduce_mean(squares, axis=-1, keepdims=True)  # (U, K, 1)
        accumulator = accumulator + squares
        step = learning_rate * gradient / (tf.sqrt(accumulator) + self.epsilon)
        return weights - step, (accumulator,)


ROWWISE_ADAGRAD = RuleVariant(Adagrad, fixed={"row_wise": True})
