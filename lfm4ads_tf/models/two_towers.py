"""Embeddings and towers: one vector per user and one per item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf
import tf_keras

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.embeddings.config import EmbeddingsConfig, TableOptions
from lfm4ads_tf.embeddings.hashing import Hashing
from lfm4ads_tf.embeddings.table import EmbeddedFeature, ShardedEmbedding, TableConfig
from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.features.layout import FeatureLayout, TableField
from lfm4ads_tf.models.tower import Tower

Label = tuple[str, int]
"""A column of an activation: what it comes from, and its position in that."""


@dataclass(frozen=True)
class TowerOutputs:
    """What the towers hand to the interaction block.

    Attributes:
        user: UR, (B, d_u); a function of user features alone.
        item: IR, (B, d_i); a function of item features alone.
        context: (B, d_c), or None without context features.
        fields: Field embeddings per width w, each (B, F_w, K w).
        stream: [UR; IR; context] as one tensor, where that needs no copy, else None.
    """

    user: tf.Tensor
    item: tf.Tensor
    context: tf.Tensor | None
    fields: list[tf.Tensor]
    stream: tf.Tensor | None = None


class TwoTowers(tf_keras.layers.Layer):
    """ShardedEmbedding -> user tower and item tower, each seeing its own side only.

    Args:
        layout: Columns of the encoded batch.
        user_units, item_units: Hidden units of the towers, see `Tower`.
        embeddings: Tables.
        seed: Seed of all initial weights.

    Raises:
        UserError: The layout has no user or no item feature.
    """

    def __init__(
        self,
        layout: FeatureLayout,
        user_units: Sequence[int],
        item_units: Sequence[int],
        embeddings: EmbeddingsConfig,
        *,
        seed: int = 0,
        name: str = "two_towers",
    ) -> None:
        super().__init__(name=name)
        self.layout = layout
        self._dense_columns = {o: layout.dense_columns(o) for o in ("user", "item", "context")}
        owned = {f.owner for f in layout.fields} | {d.owner for d in layout.dense}
        for side in ("user", "item"):
            if side not in owned:
                raise UserError(
                    f"The feature spec declares no {side} feature, so there is no {side} tower.",
                    fix=f"declare at least one feature with `owner: {side}`, such as its key",
                )
        self.embeddings = build_embeddings(layout, embeddings, seed=seed)
        self.user_tower = Tower(user_units, seed=seed, name="user_tower")
        self.item_tower = Tower(item_units, seed=seed, name="item_tower")

    @property
    def fields_width(self) -> int:
        """Columns of all field embeddings together."""
        tables = self.embeddings
        return sum(len(tables.fields(dim)) * tables.sets * dim for dim in tables.dims)

    def towers(
        self, batch: EncodedBatch, training: bool = False, *, gate: tf.Tensor | None = None
    ) -> TowerOutputs:
        """Looks up the embeddings and runs both towers.

        Args:
            batch: The batch.
            training: Whether compiled kernels may be used.
            gate: Factor of the field embeddings, (B, `fields_width`), or None.
        """
        embedded = self.embeddings(
            own_columns(batch["ids"], self.layout.id_columns), batch.get("bags"), training=training
        )
        numbers = own_columns(batch["dense"], self.layout.number_columns)  # (B, N)
        owners = {f.name: f.owner for f in self.layout.fields}
        inputs: dict[str, list[tf.Tensor]] = {"user": [], "item": [], "context": []}
        fields: list[tf.Tensor] = []
        start = 0
        for dim, values in embedded.items():
            names = self.embeddings.fields(dim)
            width = self.embeddings.sets * dim
            fields.append(tf.reshape(values, [-1, len(names), width]))  # (B, F_w, K w)
            if gate is not None:
                own = gate[:, start : start + len(names) * width]  # (B, F_w K w)
                fields[-1] *= tf.reshape(own, [-1, len(names), width])  # (B, F_w, K w)
                start += len(names) * width
            counts = [sum(owners[name] == owner for name in names) for owner in inputs]
            # a split's gradient is one concatenation, a slice's pads the whole tensor with zeros
            pieces = tf.split(fields[-1], counts, axis=1)
            for parts, piece, count in zip(inputs.values(), pieces, counts, strict=True):
                if count:
                    parts.append(tf.reshape(piece, [-1, count * width]))  # (B, F_o K w)
        for owner, columns in self._dense_columns.items():
            if columns:
                inputs[owner].append(numbers[:, columns[0] : columns[-1] + 1])  # (B, N_o)
        context = inputs["context"]
        return TowerOutputs(
            user=self.user_tower(tf.concat(inputs["user"], axis=-1)),
            item=self.item_tower(tf.concat(inputs["item"], axis=-1)),
            context=tf.concat(context, axis=-1) if context else None,
            fields=fields,
            stream=self._plain_stream(fields),
        )

    def input_labels(self, owner: str) -> list[Label]:
        """What each column of an owner's input is: a feature and a position in it."""
        owners = {f.name: f.owner for f in self.layout.fields}
        labels: list[Label] = []
        for dim in self.embeddings.dims:
            for name in self.embeddings.fields(dim):
                if owners[name] == owner:
                    labels += [(name, j) for j in range(self.embeddings.sets * dim)]
        for field in self.layout.dense:
            if field.owner == owner:
                labels += [(field.name, j) for j in range(field.width)]
        return labels

    def stream_labels(self) -> list[Label]:
        """What each column of [UR; IR; context] is: as `input_labels`, or an output of a tower."""
        labels: list[Label] = []
        for owner, tower in (("user", self.user_tower), ("item", self.item_tower)):
            if tower.layers:
                labels += [(tower.name, j) for j in range(int(tower.layers[-1].units))]
            else:
                labels += self.input_labels(owner)
        return labels + self.input_labels("context")

    def _plain_stream(self, fields: list[tf.Tensor]) -> tf.Tensor | None:
        """[UR; IR; context] without a copy, where it is nothing but the fields in order."""
        plain = not (self.user_tower.layers or self.item_tower.layers or self.layout.dense)
        if not plain or len(fields) != 1:
            return None
        return tf.reshape(fields[0], [-1, fields[0].shape[1] * fields[0].shape[2]])  # (B, F K w)


def own_columns(values: tf.Tensor, columns: Sequence[int] | None) -> tf.Tensor:
    """The columns of a batch's matrix that a layout reads, (B, all) -> (B, own)."""
    if columns is None:
        return values
    return tf.gather(values, tf.constant(columns, tf.int32, [len(columns)]), axis=1)


def build_embeddings(
    layout: FeatureLayout, config: EmbeddingsConfig, *, seed: int, name: str = "embeddings"
) -> ShardedEmbedding:
    """The tables of a layout at the widths and with the options of a configuration.

    Raises:
        UserError: `config.tables` names a table that the layout does not have.
    """
    known = [table.name for table in layout.tables]
    # A layout that leaves features out may also have left their tables out.
    for name_of in config.tables if layout.id_columns is None else ():
        if name_of not in known:
            raise UserError(
                f"embeddings.tables names the unknown table '{name_of}'.{nearest(name_of, known)}",
                fix=f"use some of {', '.join(known)}; features that share a table have its "
                "owner's name",
            )
    return ShardedEmbedding(
        [_table(table, config) for table in layout.tables],
        [EmbeddedFeature(f.name, table=f.table, combiner=f.combiner) for f in layout.fields],
        shards=config.shards,
        sets=config.sets,
        seed=seed,
        init=config.init,
        tables_per_width=config.tables_per_width,
        name=name,
    )


def embedding_width(table: TableField, config: EmbeddingsConfig) -> int:
    """Width of a table's embeddings, of each set."""
    return config.tables.get(table.name, TableOptions()).dim or table.dim or config.dim


def _table(table: TableField, config: EmbeddingsConfig) -> TableConfig:
    """One table with its own options where it has some."""
    options = config.tables.get(table.name, TableOptions())
    hashing = options.hashing
    return TableConfig(
        table.name,
        rows=table.rows,
        dim=embedding_width(table, config),
        init_scale=options.init_scale or config.init_scale,
        storage=options.storage or config.storage,
        trainable=options.trainable,
        group=options.group,
        hashing=None if hashing is None else Hashing(hashing.kind, hashing.buckets),
    )
