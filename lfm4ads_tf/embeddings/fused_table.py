"""One physical table: logical tables of one width and one treatment, stacked."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from lfm4ads_tf.embeddings.embedded_feature import EmbeddedFeature
from lfm4ads_tf.embeddings.table_config import TableConfig
from lfm4ads_tf.embeddings.table_shards import RowSpread


class FusedTable:
    """The physical table of some logical tables of one width.

    Args:
        name: Its key within the layer: the width, and what sets it apart from others of its width.
        tables: The logical tables, stacked in this order; alike in width, storage, group and
            whether they are trained.
        features: The features that read them, in the order of the output.
        columns: Column of each single-valued feature in the ids of the whole layer.

    Attributes:
        offsets: Logical table -> row of its id 0 before the spread.
        spread: The bijection from stacked rows to rows of the variable.
        single, pooled, maxed: The features by treatment: single-valued, summed or averaged, max.
    """

    def __init__(
        self,
        name: str,
        tables: Sequence[TableConfig],
        features: Sequence[EmbeddedFeature],
        columns: Sequence[int],
    ) -> None:
        self.name = name
        self.dim = tables[0].dim
        self.storage = tables[0].storage
        self.trainable = tables[0].trainable and self.storage != "int8"
        self.group = tables[0].group
        self.features = tuple(features)
        self.single = [f for f in features if f.combiner is None]
        self.pooled = [f for f in features if f.combiner in ("mean", "sum")]
        self.maxed = [f for f in features if f.combiner == "max"]
        self.columns = list(columns)
        self.tables = {table.name: table for table in tables}
        ends = np.cumsum([table.stored_rows + 1 for table in tables])
        self.rows = int(ends[-1])
        starts = [0, *(int(end) for end in ends[:-1])]
        self.offsets = dict(zip(self.tables, starts, strict=True))
        # seeded by the name alone: a checkpoint stays readable under another model seed
        digest = hashlib.blake2b(name.encode(), digest_size=4).digest()
        seed = self.dim if name == str(self.dim) else int.from_bytes(digest, "little")
        self.spread = RowSpread(self.rows, seed=seed)

    def config(self, feature: EmbeddedFeature) -> TableConfig:
        """The logical table of a feature."""
        return self.tables[feature.table]

    def limits(self, features: Sequence[EmbeddedFeature]) -> tuple[np.ndarray, np.ndarray]:
        """(row of the table's id 0, number of the table's ids) per feature, each (F,) int64."""
        offsets = [self.offsets[f.table] for f in features]
        return np.array(offsets, np.int64), np.array([self.config(f).rows for f in features])


def fuse(
    tables: Sequence[TableConfig],
    features: Sequence[EmbeddedFeature],
    columns: dict[str, int],
    per_width: int,
) -> dict[str, FusedTable]:
    """Groups logical tables into physical ones.

    Args:
        tables: All logical tables.
        features: All features.
        columns: Column of each single-valued feature.
        per_width: Physical tables that tables of one width and treatment are dealt to.

    Returns:
        Name -> physical table; the name is the width alone where there is nothing to tell apart.
    """
    dealt: dict[str, int] = {}
    members: dict[str, list[TableConfig]] = {}
    for table in tables:
        parts = [str(table.dim)]
        parts += [table.storage] if table.storage != "float32" else []
        parts += [] if table.trainable else ["frozen"]
        parts += [f"group.{table.group}"] if table.group else []
        key = "_".join(parts)
        turn = dealt.get(key, 0)
        dealt[key] = turn + 1
        members.setdefault(f"{key}_{turn % per_width}" if per_width > 1 else key, []).append(table)
    fused = {}
    for name, mine in members.items():
        names = {table.name for table in mine}
        readers = [f for f in features if f.table in names]
        own = [columns[f.name] for f in readers if f.combiner is None]
        fused[name] = FusedTable(name, mine, readers, own)
    return fused
