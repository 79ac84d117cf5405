"""The layout of an encoded batch: which column of `ids` and `dense` belongs to what."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

OWNERS: tuple[Literal["user", "item", "context"], ...] = ("user", "item", "context")


@dataclass(frozen=True)
class IdField:
    """One embedded feature.

    Attributes:
        name: The feature.
        owner: user, item or context.
        table: Embedding table that its ids select from.
        combiner: None for one id per row; `mean` or `sum` for a bag of ids.
    """

    name: str
    owner: Literal["user", "item", "context"]
    table: str
    combiner: Literal["mean", "sum"] | None = None


@dataclass(frozen=True)
class DenseField:
    """One dense feature: `width` consecutive columns of the dense matrix."""

    name: str
    owner: Literal["user", "item", "context"]
    width: int = 1


@dataclass(frozen=True)
class TableField:
    """One embedding table: logical ids are in [0, rows); -1 is missing.

    `dim` is None when the run's default width applies.
    """

    name: str
    rows: int
    dim: int | None = None


@dataclass(frozen=True)
class FeatureLayout:
    """Order and meaning of an encoded batch's columns, owner by owner (user, item, context).

    The columns of `ids` are the single-valued `fields` in order; bags travel by name.
    """

    fields: tuple[IdField, ...]
    dense: tuple[DenseField, ...]
    tables: tuple[TableField, ...]
    scenarios: tuple[str, ...]
    tasks: tuple[str, ...]

    @cached_property
    def single(self) -> tuple[IdField, ...]:
        """Fields with one id per row: the columns of `ids`."""
        return tuple(f for f in self.fields if f.combiner is None)

    @cached_property
    def bags(self) -> tuple[IdField, ...]:
        """Fields with a bag of ids per row."""
        return tuple(f for f in self.fields if f.combiner is not None)

    @cached_property
    def dense_width(self) -> int:
        """Columns of the dense matrix."""
        return sum(d.width for d in self.dense)

    def dense_columns(self, owner: str) -> list[int]:
        """Columns of the dense matrix that belong to one owner."""
        columns: list[int] = []
        start = 0
        for field in self.dense:
            if field.owner == owner:
                columns += range(start, start + field.width)
            start += field.width
        return columns

    def to_json(self) -> dict[str, Any]:
        """Plain values, read back by `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> FeatureLayout:
        """Rebuilds what `to_json` gave."""
        return cls(
            fields=tuple(IdField(**f) for f in data["fields"]),
            dense=tuple(DenseField(**d) for d in data["dense"]),
            tables=tuple(TableField(**t) for t in data["tables"]),
            scenarios=tuple(data["scenarios"]),
            tasks=tuple(data["tasks"]),
        )
