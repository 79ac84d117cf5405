"""What every update rule of a row-sparse optimizer provides."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import tensorflow as tf

from lfm4ads_tf.optim.rules.slot import Slot


class RowRule(abc.ABC):
    """The formula of an optimizer for the rows that a batch touched.

    A rule is a frozen dataclass of plain numbers: hashable, without variables, and free to be
    shared by tables. U is the number of distinct touched rows, K the sets of a row, D the width
    of a set. Rows and sets are independent of each other; a slot that is not `per_element` is
    shared by the D floats of one set.

    The caller sums duplicates, adds the L2 and clips before, and afterwards keeps the weights and
    slots of those sets bit by bit whose gradient is all zero: `update` itself treats zero as a
    gradient like any other. Numbers of a rule are rounded to float32 before they are used, and
    every operation is float32.

    Attributes:
        name: What its slots are stored under, and its compiled twin's name where it has one.
        shorthands: Option -> key of `OptimizerConfig` that gives it where `rule_options` does not.
    """

    name: ClassVar[str]
    shorthands: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        """A rule of another formula than its parent's has no part in the parent's compiled twin."""
        super().__init_subclass__(**options)
        members = vars(cls)
        if members.keys() & {"update", "slots"} and "compiled_options" not in members:
            cls.compiled_options = RowRule.compiled_options  # type: ignore[method-assign]

    @property
    def compiled_options(self) -> Sequence[float] | None:
        """Options in the order of the compiled twin; None where there is none."""
        return None

    @property
    @abc.abstractmethod
    def slots(self) -> tuple[Slot, ...]:
        """The state of the rule, in the order in which `update` takes and returns it."""

    @abc.abstractmethod
    def update(
        self,
        weights: tf.Tensor,
        slots: tuple[tf.Tensor, ...],
        gradient: tf.Tensor,
        learning_rate: tf.Tensor,
    ) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        """One step of the rule on the touched rows.

        Args:
            weights: (U, K, D) float32.
            slots: As in `self.slots`: (U, K, D) float32 where per element, else (U, K, 1).
            gradient: (U, K, D) float32, summed over the batch.
            learning_rate: () float32.

        Returns:
            The new weights and the new slots, of the shapes they came in.
        """
