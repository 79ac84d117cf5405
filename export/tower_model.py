"""One side's tower with the tables of that side alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import tensorflow as tf

from export.merging import copy_tables
from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.embeddings.config import ServedStorage
from lfm4ads_tf.embeddings.table import EmbeddedFeature, ShardedEmbedding
from lfm4ads_tf.models.two_towers import TwoTowers


class TowerModel(tf.Module):
    """UR = UserTower(user fields) or IR = ItemTower(item fields), cut out of a backbone.

    The tables that the side's features read are copied row by row into tables of their own,
    in one shard; the tower's dense layers are the backbone's. Nothing of the other side,
    the context or the interaction block is carried along.

    Args:
        backbone: The trained backbone, already called once.
        side: `user` or `item`.
        storage: Type of the tables.

    Raises:
        ExportRefused: A value of a table cannot be kept in this type.
    """

    def __init__(
        self,
        backbone: TwoTowers,
        side: Literal["user", "item"],
        storage: ServedStorage = "float32",
    ) -> None:
        super().__init__(name=f"{side}_tower")
        layout, source = backbone.layout, backbone.embeddings
        fields = [f for f in layout.fields if f.owner == side]
        self.features = [f.name for f in fields]
        self.features += [d.name for d in layout.dense if d.owner == side]
        self._tower = backbone.user_tower if side == "user" else backbone.item_tower
        self._dense_columns = layout.dense_columns(side)
        self._id_columns = [i for i, f in enumerate(layout.single) if f.owner == side]
        self._bags = tuple(f.name for f in fields if f.combiner is not None)
        # the tower concatenates the widths in the backbone's order, not in that of the fewer tables
        self._dims = source.dims
        self.embeddings: ShardedEmbedding | None = None
        if fields:
            read = {f.table for f in fields}
            self.embeddings = ShardedEmbedding(
                [
                    replace(table, storage=storage, trainable=True, group="")
                    for name, table in source.layout.tables.items()
                    if name in read
                ],
                [EmbeddedFeature(f.name, f.table, f.combiner) for f in fields],
                shards=1,
                sets=source.sets,
                name=f"{side}_embeddings",
            )
            copy_tables(source, self.embeddings)

    @property
    def dense_variables(self) -> list[tf.Variable]:
        """Weights of the tower's layers."""
        return list(self._tower.variables)

    def __call__(self, batch: EncodedBatch) -> tf.Tensor:
        """The representation (B, d) of each row's user or item."""
        parts: list[tf.Tensor] = []
        if self.embeddings is not None:
            ids = tf.gather(batch["ids"], self._id_columns, axis=1)  # (B, F_single)
            embedded = self.embeddings(ids, {name: batch["bags"][name] for name in self._bags})
            for dim in self._dims:
                if dim in embedded:
                    width = len(self.embeddings.fields(dim)) * self.embeddings.sets * dim
                    parts.append(tf.reshape(embedded[dim], [-1, width]))  # (B, F K D)
        if self._dense_columns:
            low, high = self._dense_columns[0], self._dense_columns[-1]
            parts.append(batch["dense"][:, low : high + 1])  # (B, N)
        return self._tower(tf.concat(parts, axis=-1))
