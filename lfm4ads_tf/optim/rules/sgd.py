"""Gradient descent, plain or with momentum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import tensorflow as tf

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.optim.rules.checks import require_flag, require_number
from lfm4ads_tf.optim.rules.rule import RowRule
from lfm4ads_tf.optim.rules.slot import Slot


@dataclass(frozen=True)
class Sgd(RowRule):
    """Gradient descent with an optional, lazy momentum.

        w <- w - learning_rate * g                             (momentum 0, no slot)

        m <- momentum * m + g
        w <- w - learning_rate * m                             (momentum above 0)
        w <- w - learning_rate * (g + momentum * m)            (nesterov)

    Lazy means that the momentum of a set decays, and moves its weights, only when the set is
    touched: equal to dense momentum for a set touched at every step; a rare set takes up its old
    direction at the next touch. The learning rate scales m when it is applied, not when it is
    gathered, so a changed rate holds for the whole step at once.

    Slots: `momentum` m, (U, K, D); none when momentum is 0.

    Sources: Polyak, 1964 (momentum); Sutskever et al., ICML 2013, section 2 (Nesterov's form).

    Args:
        momentum: Share of m kept per touch; in [0, 1).
        nesterov: Looks one step ahead along m; needs momentum.

    Raises:
        UserError: An option is out of its bounds, or `nesterov` is set without momentum.
    """

    name: ClassVar[str] = "sgd"
    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        momentum = require_number(self.name, "momentum", self.momentum, at_least=0.0, below=1.0)
        require_flag(self.name, "nesterov", self.nesterov)
        if self.nesterov and not momentum:
            raise UserError(
                "The update rule 'sgd' has nothing to look ahead along: nesterov needs momentum.",
                received=f"momentum={self.momentum!r}, nesterov=True",
                fix="Give 'momentum' a value above 0, such as 0.9, or leave 'nesterov' out.",
            )

    @property
    def compiled_options(self) -> Sequence[float]:
        """See `RowRule`."""
        return (self.momentum, float(self.nesterov))

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The momentum m, if there is one."""
        return (Slot("momentum", per_element=True, initial=0.0),) if self.momentum else ()

    def update(
        self,
        weights: tf.Tensor,
        slots: tuple[tf.Tensor, ...],
        gradient: tf.Tensor,
        learning_rate: tf.Tensor,
    ) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        """One step; shapes as in `RowRule.update`."""
        if not self.momentum:
            return weights - learning_rate * gradient, ()
        (momentum,) = slots
        momentum = self.momentum * momentum + gradient
        direction = gradient + self.momentum * momentum if self.nesterov else momentum
        return weights - learning_rate * direction, (momentum,)
