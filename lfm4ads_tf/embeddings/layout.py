"""Which rows of which physical table a feature reads: plain numbers, no variables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

from lfm4ads_tf.embeddings.config import STORAGES
from lfm4ads_tf.embeddings.embedded_feature import COMBINERS, EmbeddedFeature
from lfm4ads_tf.embeddings.fused_table import FusedTable, fuse
from lfm4ads_tf.embeddings.table_config import TableConfig
from lfm4ads_tf.errors import UserError, nearest


class EmbeddingLayout:
    """All tables and features of a layer, checked, and grouped into physical tables.

    Args:
        tables: The logical tables.
        features: The features in the order of the output.
        tables_per_width: Physical tables that the tables of one width are dealt to.

    Raises:
        UserError: No table, a duplicate or unknown name, a size below 1, an unknown storage or
            combiner, or a maximum over a table with several hashes.
    """

    def __init__(
        self,
        tables: Sequence[TableConfig],
        features: Sequence[EmbeddedFeature],
        tables_per_width: int = 1,
    ) -> None:
        self.tables = {table.name: table for table in tables}
        self.features = tuple(features)
        self._tables_per_width = tables_per_width
        self._check(tables)
        self.single_features = tuple(f.name for f in features if f.combiner is None)
        self.bag_features = tuple(f.name for f in features if f.combiner is not None)
        columns = {name: i for i, name in enumerate(self.single_features)}
        self.fused = fuse(tables, features, columns, tables_per_width)
        self.dims = tuple(dict.fromkeys(table.dim for table in tables))
        self._home = {t: f for f in self.fused.values() for t in f.tables}

    def only(self, features: Collection[str]) -> EmbeddingLayout:
        """The same tables, read by some of the features."""
        kept = [f for f in self.features if f.name in features]
        return EmbeddingLayout(list(self.tables.values()), kept, self._tables_per_width)

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

    def home(self, table: str) -> FusedTable:
        """The physical table that holds the logical table `table`.

        Raises:
            UserError: There is none of that name.
        """
        return self._home[self.table(table).name]

    def fields(self, dim: int) -> tuple[str, ...]:
        """Names of the features of one width in declared order."""
        return tuple(f.name for f in self.features if self.tables[f.table].dim == dim)

    def manifest(self) -> dict[str, Any]:
        """Plain JSON values.

        Returns:
            `tables`: name -> its configuration, the physical table (`fused`) and its offset (row
            of id 0 before the spread); `features`: name -> table, combiner; `spread`: physical
            table -> rows, multiplier, shift.
        """
        return {
            "tables": {
                name: asdict(table)
                | {"fused": self.home(name).name, "offset": self.home(name).offsets[name]}
                for name, table in self.tables.items()
            },
            "features": {f.name: {"table": f.table, "combiner": f.combiner} for f in self.features},
            "spread": {
                name: {
                    "rows": fused.rows,
                    "multiplier": fused.spread.multiplier,
                    "shift": fused.spread.shift,
                }
                for name, fused in self.fused.items()
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
            if table.storage not in STORAGES:
                raise UserError(
                    f"Embedding table '{table.name}' has an unknown storage.",
                    received=table.storage,
                    fix=f"Use one of {', '.join(STORAGES)}.",
                )
        for feature in self.features:
            table = self.table(feature.table)
            if feature.combiner not in (None, *COMBINERS):
                raise UserError(
                    f"Feature '{feature.name}' has an unknown combiner.",
                    received=feature.combiner,
                    fix="Use 'mean', 'sum', 'max', or none for a single-valued feature.",
                )
            if feature.combiner == "max" and table.hashing is not None:
                raise UserError(
                    f"Feature '{feature.name}' takes a maximum over a table with several hashes.",
                    received=f"table '{table.name}', hashing {table.hashing.kind}",
                    fix="Use the combiner 'sum' or 'mean', or a table without hashing.",
                )
