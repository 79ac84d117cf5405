"""The layout of an encoded batch: which column of `ids` and `dense` belongs to what."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, Literal

from lfm4ads_tf.errors import UserError, nearest

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

    The columns of `ids` are the single-valued `fields` in order; bags travel by name. A layout
    that `only` or `without` made has fewer features than the batch; `id_columns` and
    `number_columns` then say where the batch holds its own.

    Attributes:
        id_columns: Column of `ids` of each single-valued field; None where they are all of them.
        number_columns: Columns of `dense` in order; None where they are all of them.
    """

    fields: tuple[IdField, ...]
    dense: tuple[DenseField, ...]
    tables: tuple[TableField, ...]
    scenarios: tuple[str, ...]
    tasks: tuple[str, ...]
    segments: tuple[str, ...] = ()
    id_columns: tuple[int, ...] | None = None
    number_columns: tuple[int, ...] | None = None

    @property
    def features(self) -> list[str]:
        """Names of all features, embedded ones first."""
        return [*(f.name for f in self.fields), *(d.name for d in self.dense)]

    def without(self, patterns: Sequence[str]) -> FeatureLayout:
        """The layout without the features that a pattern such as `item_*` matches.

        Raises:
            UserError: A pattern matches no feature.
        """
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in self.features):
                raise UserError(
                    f"'{pattern}' matches no feature.{nearest(pattern, self.features)}",
                    fix=f"use names or patterns of {', '.join(self.features)}",
                )
        kept = [n for n in self.features if not any(fnmatchcase(n, p) for p in patterns)]
        return self.only(kept) if patterns else self

    def only(self, names: Collection[str]) -> FeatureLayout:
        """The layout with these features and the tables that they read."""
        fields = tuple(f for f in self.fields if f.name in names)
        read = {f.table for f in fields}
        ids = range(len(self.single)) if self.id_columns is None else self.id_columns
        numbers = range(self.dense_width) if self.number_columns is None else self.number_columns
        owners = [d.name for d in self.dense for _ in range(d.width)]
        return replace(
            self,
            fields=fields,
            dense=tuple(d for d in self.dense if d.name in names),
            tables=tuple(t for t in self.tables if t.name in read),
            id_columns=tuple(c for c, f in zip(ids, self.single, strict=True) if f.name in names),
            number_columns=tuple(c for c, n in zip(numbers, owners, strict=True) if n in names),
        )

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
        """Plain values of a whole batch's layout, read back by `from_json`."""
        plain = asdict(self)
        return {k: v for k, v in plain.items() if k not in ("id_columns", "number_columns")}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> FeatureLayout:
        """Rebuilds what `to_json` gave."""
        return cls(
            fields=tuple(IdField(**f) for f in data["fields"]),
            dense=tuple(DenseField(**d) for d in data["dense"]),
            tables=tuple(TableField(**t) for t in data["tables"]),
            scenarios=tuple(data["scenarios"]),
            tasks=tuple(data["tasks"]),
            segments=tuple(data["segments"]),
        )
