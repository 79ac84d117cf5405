"""The split and the periods of a data set, as a feature spec declares them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from lfm4ads_tf.features.moments import moment_of, moment_text
from lfm4ads_tf.strict import StrictModel
from lfm4ads_tf.written import Written


def _bound(value: Any) -> float | str:
    """A bound as a number, or as a date or time in ISO 8601 in UTC."""
    if isinstance(value, Written) and isinstance(value.value, date):
        value = value.value
    if isinstance(value, date):  # YAML reads `2026-01-06` as one; a datetime is a date too
        value = value.isoformat()
    try:
        number = math.nan if isinstance(value, bool) else float(value)
        if math.isfinite(number):
            return number
    except (TypeError, ValueError):
        pass
    seconds = moment_of(value.strip()) if isinstance(value, str) else None
    if seconds is None:
        raise ValueError(
            "give a number, a date such as 2026-01-06, or a time such as 2026-01-06T12:00:00Z"
        )
    return moment_text(seconds)


Bound = Annotated[float | str, BeforeValidator(_bound)]


class SplitByColumn(StrictModel):
    """train: column < train_until <= valid: column < valid_until <= test.

    The bounds are numbers, or dates or times; they are compared with a column of the same kind.
    """

    by: str
    train_until: Bound
    valid_until: Bound

    @property
    def dated(self) -> bool:
        """Whether the bounds are dates or times."""
        return isinstance(self.train_until, str)

    @property
    def bounds(self) -> tuple[float, float]:
        """The bounds as numbers; dates and times in seconds since 1970 in UTC."""
        return _number(self.train_until), _number(self.valid_until)

    @model_validator(mode="after")
    def _ordered(self) -> SplitByColumn:
        if isinstance(self.train_until, str) != isinstance(self.valid_until, str):
            raise ValueError(
                f"train_until ({_shown(self.train_until)}) and valid_until "
                f"({_shown(self.valid_until)}) must both be numbers, or both dates or times"
            )
        train, valid = self.bounds
        if train >= valid:
            raise ValueError(
                f"train_until ({_shown(self.train_until)}) must be below valid_until "
                f"({_shown(self.valid_until)})"
            )
        return self


def _number(bound: float | str) -> float:
    """A bound in the scale of its column."""
    return bound if isinstance(bound, float) else moment_of(bound) or 0.0


def _shown(bound: float | str) -> str:
    return f"{bound:.15g}" if isinstance(bound, float) else bound


class SplitByFraction(StrictModel):
    """The first, middle and last fraction of each scenario's rows in time order."""

    per: Literal["scenario", "all"]
    by: Literal["time"] = "time"
    fractions: tuple[float, float, float]

    @model_validator(mode="after")
    def _sum_to_one(self) -> SplitByFraction:
        if min(self.fractions) <= 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise ValueError(f"fractions must be positive and sum to 1, got {self.fractions}")
        return self


def _kind_of_split(value: Any) -> str:
    """Tag of a split, whether raw or validated."""
    fractions = isinstance(value, SplitByFraction) or (
        isinstance(value, Mapping) and "fractions" in value
    )
    return "by fraction" if fractions else "by column"


BLOCKS = 8
"""Blocks of time when no period is given."""


class Period(StrictModel):
    """What "a day" is: the distinct values of a column, or blocks of time.

    Blocks are cut over the rows of all scenarios that overlap in time, into `blocks` equal parts,
    see `lfm4ads_tf.data.splits`.

    Attributes:
        by: The column.
        blocks: The number of blocks.
        first_at_most: How many periods of the training rows may count as one first period, so
            that every number varies in it, see `lfm4ads_tf.data.first_period`.
    """

    by: str | None = None
    blocks: int | None = Field(default=None, ge=2)
    first_at_most: int = Field(default=3, ge=1)

    @model_validator(mode="after")
    def _one_of(self) -> Period:
        neither = self.by is None and self.blocks is None
        if neither and "first_at_most" in self.model_fields_set:
            object.__setattr__(self, "blocks", BLOCKS)  # said of the default period
        elif (self.by is None) == (self.blocks is None):
            raise ValueError("give exactly one of `by` (a column) and `blocks` (a number)")
        return self


Split = Annotated[
    Annotated[SplitByColumn, Tag("by column")] | Annotated[SplitByFraction, Tag("by fraction")],
    Discriminator(_kind_of_split),
]
