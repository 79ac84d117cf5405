"""One side's tower with the tables of that side alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import tensorflow as tf

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.embeddings.config import ServedStorage
from lfm4ads_tf.embeddings.table import EmbeddedFeature, ShardedEmbedding
from lfm4ads_tf.export.merging import copy_tables
from lfm4ads_tf.interactions.field_group import FieldGroup
from lfm4ads_tf.models.owned_fields import OwnedFields
from lfm4ads_tf.models.two_towers import TwoTowers, own_columns


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
        source = backbone.embeddings
        layout = backbone.layout
        self.features = [field.name for field in layout.fields if field.owner == side]
        self.features += [number.name for number in layout.dense if number.owner == side]
        self._side = side
        self._layout = layout.only(self.features)
        fields = self._layout.fields
        self._tower = backbone.user_tower if side == "user" else backbone.item_tower
        # the tower concatenates the widths in the backbone's order, not in that of the fewer tables
        names = {dim: source.fields(dim) for dim in source.dims}
        self._owned = OwnedFields(self._layout, names, source.sets)
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
        groups: list[FieldGroup] = []
        if self.embeddings is not None:
            ids = own_columns(batch["ids"], self._layout.id_columns)  # (B, F_single)
            bags = {field.name: batch["bags"][field.name] for field in self._layout.bags}
            embedded = self.embeddings(ids, bags)
            groups = self._owned.groups(embedded)
        numbers = own_columns(batch["dense"], self._layout.number_columns)  # (B, N)
        inputs = self._owned.split(groups, numbers, (self._side,))
        return self._tower.represent(inputs[self._side])
