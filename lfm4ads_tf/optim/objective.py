"""What a training minimises, and with which optimizers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.optim.optimizer_part import OptimizerPart
from lfm4ads_tf.training.config import OptimizerConfig


@dataclass(frozen=True)
class Objective:
    """Named losses of a batch and their optimizers; all that the trainer knows of a model's aim.

        total = sum_n L_n,  optimizer p minimises sum of its L_n over the variables that it takes

    Attributes:
        losses: Batch -> name -> scalar, called once a step under a gradient tape.
        optimizers: At least one, of different names. Every trainable variable belongs to exactly
            one of them.
        frozen: Path of a trainable variable -> whether it may stay as it is, taken by none.

    Raises:
        UserError: There is no optimizer, two have one name, or two take what is left over.
    """

    losses: Callable[[Any], Mapping[str, tf.Tensor]]
    optimizers: Sequence[OptimizerPart]
    frozen: Callable[[str], bool] | None = None

    def __post_init__(self) -> None:
        names = [optimizer.name for optimizer in self.optimizers]
        if not names or len(set(names)) < len(names):
            raise UserError(
                "An objective needs one optimizer or more, of different names.",
                received=", ".join(names) or "none",
            )
        rest = [optimizer.name for optimizer in self.optimizers if optimizer.takes is None]
        if len(rest) > 1:
            raise UserError(
                "Two optimizers take all variables that no other one does.",
                received=" and ".join(rest),
                fix="give all but one of them `takes`",
            )

    @classmethod
    def of(
        cls, losses: Callable[[Any], Mapping[str, tf.Tensor]], config: OptimizerConfig
    ) -> Objective:
        """The objective of one optimizer that moves all variables by all losses."""
        return cls(losses, (OptimizerPart(config),))

    def sums(self, terms: Mapping[str, tf.Tensor]) -> list[tf.Tensor]:
        """What each optimizer minimises: the sum of its losses, in their order.

        Args:
            terms: What `losses` gave.

        Returns:
            One scalar per optimizer.

        Raises:
            UserError: An optimizer names a loss that there is not, or a loss belongs to none.
        """
        minimised: set[str] = set()
        values = []
        for optimizer in self.optimizers:
            names = list(terms) if optimizer.losses is None else list(optimizer.losses)
            for name in names:
                if name not in terms:
                    raise UserError(
                        f"The optimizer '{optimizer.name}' minimises the unknown loss '{name}'."
                        + nearest(name, terms),
                        fix=f"use some of {', '.join(terms)}",
                    )
            minimised |= set(names)
            values.append(total_of({name: terms[name] for name in names}))
        for name in terms:
            if name not in minimised:
                raise UserError(
                    f"No optimizer minimises the loss '{name}'.",
                    fix="name it in `losses` of one of them, or leave it out of the objective",
                )
        return values


def total_of(terms: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """The sum of named losses in their order; a single one is the sum itself."""
    first, *others = terms.values()
    for term in others:
        first = first + term
    return first
