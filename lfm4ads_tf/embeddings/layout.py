"""Which rows of which physical table a feature reads: plain numbers, no variables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lfm4ads_tf.embeddings.partition import RowSpread
from lfm4ads_tf.errors import UserError, nearest


@dataclass(frozen=True)
class TableConfig:
    """One logical table.

    Args:
        name: Unique name; checkpoints are carried over by it.
        rows: Number of ids, [0, rows). One more row is kept for the missing id, -1.
        dim: Width D of one embedding.
        init_scale: Standard deviation ("normal") or bound ("uniform") of the initial values.
    """

    name: str
    rows: int
    dim: int
    init_scale: float = 0.01


@dataclass(frozen=True)
class EmbeddedFeature:
    """One feature that reads a table.

    Args:
        name: Unique name.
        table: Name of its table; several features may name the same.
        combiner: None for a single-valued feature, "mean" or "sum" for a bag of values.
    """

    name: str
    table: str
    combiner: Literal["mean", "sum"] | None = None


class FusedTable:
    """The physical table of all logical tables of one width.

    Args:
        dim: The width D.
        tables: The logical tables of that width, stacked in this order.
        features: The features that read them, in the order of the output.
        columns: Column of each single-valued feature in the ids of the whole layer.
    """

    def __init__(
        self,
        dim: int,
        tables: Sequence[TableConfig],
        features: Sequence[EmbeddedFeature],
        columns: Sequence[int],
    ) -> None:
        self.dim = dim
        self.features = tuple(features)
        self.single = [f for f in features if f.combiner is None]
        self.bags = [f for f in features if f.combiner is not None]
        self.columns = list(columns)
        ends = np.cumsum([table.rows + 1 for table in tables])
        self.rows = int(ends[-1])
        self.starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
        self.offsets = {t.name: int(s) for t, s in zip(tables, self.starts, strict=True)}
        self._ids = {table.name: table.rows for table in tables}
        # seeded by the width alone: a checkpoint stays readable under another model seed
        self.spread = RowSpread(self.rows, seed=dim)

    def limits(self, features: Sequence[EmbeddedFeature]) -> tuple[np.ndarray, np.ndarray]:
        """(row of the table's id 0, number of the table's ids) per feature, each (F,) int64."""
        offsets = [self.offsets[f.table] for f in features]
        return np.array(offsets, np.int64), np.array([self._ids[f.table] for f in features])

    def runs(self) -> list[tuple[bool, int]]:
        """The declared order as runs (is bag, length) of features of one kind."""
        runs: list[tuple[bool, int]] = []
        for feature in self.features:
            bag = feature.combiner is not None
            if runs and runs[-1][0] == bag:
                runs[-1] = (bag, runs[-1][1] + 1)
            else:
                runs.append((bag, 1))
        return runs


class EmbeddingLayout:
    """All tables and features of a layer, checked, and grouped by width.

    Args:
        tables: The logical tables.
        features: The features in the order of the output.

    Raises:
        UserError: No table, a duplicate or unknown name, a size below 1 or an unknown combiner.
    """

    def __init__(self, tables: Sequence[TableConfig], features: Sequence[EmbeddedFeature]) -> None:
        self.tables = {table.name: table for table in tables}
        self.features = tuple(features)
        self._check(tables)
        self.single_features = tuple(f.name for f in features if f.combiner is None)
        self.bag_features = tuple(f.name for f in features if f.combiner is not None)
        column = {name: i for i, name in enumerate(self.single_features)}
        self.fused: dict[int, FusedTable] = {}
        for dim in dict.fromkeys(table.dim for table in tables):
            mine = [f for f in features if self.tables[f.table].dim == dim]
            self.fused[dim] = FusedTable(
                dim,
                [table for table in tables if table.dim == dim],
                mine,
                [column[f.name] for f in mine if f.combiner is None],
            )

    def table(self, name: str) -> TableConfig:
        """The logical table `name`.

        Raises:
            UserError: There is none of that name.
        """
        if name not in self.tables:
            raise UserError(
                f"There is no embedding table '{name}'." + nearest(name, self.tables),
                fix=f"Use one of {list(self.tables)}.",
            )
        return self.tables[name]

    def manifest(self) -> dict[str, Any]:
        """Plain JSON values.

        Returns:
            `tables`: name -> dim, offset (row of id 0 before the spread), rows, init_scale;
            `features`: name -> table, combiner; `spread`: width -> rows, multiplier, shift.
        """
        return {
            "tables": {
                t.name: {
                    "dim": t.dim,
                    "offset": self.fused[t.dim].offsets[t.name],
                    "rows": t.rows,
                    "init_scale": t.init_scale,
                }
                for t in self.tables.values()
            },
            "features": {f.name: {"table": f.table, "combiner": f.combiner} for f in self.features},
            "spread": {
                str(dim): {
                    "rows": fused.rows,
                    "multiplier": fused.spread.multiplier,
                    "shift": fused.spread.shift,
                }
                for dim, fused in self.fused.items()
            },
        }

    def _check(self, tables: Sequence[TableConfig]) -> None:
        if not tables:
            raise UserError("An embedding layer needs at least one table.", received="no table")
        for kind, names in (
            ("tables", [table.name for table in tables]),
            ("features", [feature.name for feature in self.features]),
        ):
            twice = [name for name, count in Counter(names).items() if count > 1]
            if twice:
                raise UserError(
                    f"Names of embedding {kind} must be unique.",
                    received=f"{twice} more than once",
                    fix="Rename them; features that share a table name the same table.",
                )
        for table in tables:
            if table.rows < 1 or table.dim < 1:
                raise UserError(
                    f"Embedding table '{table.name}' needs at least one row and one column.",
                    received=f"rows={table.rows}, dim={table.dim}",
                )
        for feature in self.features:
            self.table(feature.table)
            if feature.combiner not in (None, "mean", "sum"):
                raise UserError(
                    f"Feature '{feature.name}' has an unknown combiner.",
                    received=feature.combiner,
                    fix="Use 'mean', 'sum', or none for a single-valued feature.",
                )
