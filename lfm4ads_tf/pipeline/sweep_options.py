"""What a sweep compares."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.transfer.adapters.registry import ADAPTERS

LEVELS = ("feature", "module")
SIDES = ("user", "item", "both")


@dataclass(frozen=True)
class SweepOptions:
    """Options of `train.py sweep`, comma-separated as on the command line.

    Attributes:
        levels: Granularities: `feature`, `module`.
        layers: Layers of the upstream; every one when absent.
        adapters: Adapters of the feature level.
        sides: Whose CR the adapters read: `user`, `item`, or `both` joined.
        task: Task whose AUC ranks; the mean over tasks when absent.
    """

    levels: str = "feature,module"
    layers: str | None = None
    adapters: str = "linear,gate,mlp"
    sides: str = "user"
    task: str | None = None

    @property
    def chosen_levels(self) -> list[str]:
        """The granularities."""
        return _known("--levels", "granularity", self.levels, LEVELS)

    @property
    def chosen_adapters(self) -> list[str]:
        """The adapters."""
        return _known("--adapters", "adapter", self.adapters, ADAPTERS)

    @property
    def chosen_sides(self) -> list[str]:
        """The sides."""
        return _known("--sides", "side", self.sides, SIDES)

    def chosen_layers(self, known: Iterable[str]) -> list[str]:
        """The layers, out of those that the levels have."""
        names = list(known)
        return names if self.layers is None else _known("--layers", "layer", self.layers, names)

    def check_task(self, known: Iterable[str]) -> None:
        """Refuses a task that the spec does not have."""
        if self.task is not None:
            _known("--task", "task", self.task, known)


def _known(option: str, noun: str, text: str, known: Iterable[str]) -> list[str]:
    """The names in a comma-separated text, each once.

    Raises:
        UserError: One is unknown, or there is none.
    """
    names = list(known)
    named = list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    for name in named:
        if name not in names:
            raise UserError(
                f"{option} names the unknown {noun} '{name}'.{nearest(name, names)}",
                received=text,
                fix=f"use some of {', '.join(names)}",
            )
    if not named:
        raise UserError(
            f"{option} names no {noun}.", received=repr(text),
            fix=f"use some of {', '.join(names)}",
        )  # fmt: skip
    return named
