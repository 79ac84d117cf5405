"""The split and the periods of a data set, as a feature spec declares them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from lfm4ads_tf.strict import StrictModel


class SplitByColumn(StrictModel):
    """train: column < train_until <= valid: column < valid_until <= test."""

    by: str
    train_until: float
    valid_until: float

    @model_validator(mode="after")
    def _ordered(self) -> SplitByColumn:
        if self.train_until >= self.valid_until:
            raise ValueError(
                f"train_until ({self.train_until:.15g}) must be below valid_until "
                f"({self.valid_until:.15g})"
            )
        return self


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
