"""Embeddings and towers: one vector per user and one per item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf
import tf_keras

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.embeddings.config import EmbeddingsConfig, TableOptions
from lfm4ads_tf.embeddings.hashing import Hashing
from lfm4ads_tf.embeddings.table import EmbeddedFeature, ShardedEmbedding, TableConfig
from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.features.layout import OWNERS, FeatureLayout, TableField
from lfm4ads_tf.interactions.block import check_sequences
from lfm4ads_tf.interactions.columns import Carried, Label
from lfm4ads_tf.interactions.field_group import FieldGroup
from lfm4ads_tf.models.group_tower import GroupTower
from lfm4ads_tf.models.owned_fields import OwnedFields, OwnedInputs
from lfm4ads_tf.models.set_tower import SetTower, side_by_side
from lfm4ads_tf.models.tower import Tower
from lfm4ads_tf.rebuildable import Rebuildable


@dataclass(frozen=True)
class TowerOutputs:
    """What the towers hand to the interaction block.

    Attributes:
        user: UR, (B, d_u); a function of user features alone.
        item: IR, (B, d_i); a function of item features alone.
        context: (B, d_c), or None without context features; as UR and IR set by set where each set
            has towers of its own.
        fields: Field embeddings per width.
        stream: [UR; IR; context] as one tensor, where that needs no copy, else None.
        sequences: Feature -> embeddings of its values (B, L, K, D), and which there are (B, L).
        numbers: Owner -> its numbers (B, N_o), of owners that have some; one row of static size 1
            stands for B equal ones.
    """

    user: tf.Tensor
    item: tf.Tensor
    context: tf.Tensor | None
    fields: list[FieldGroup]
    stream: tf.Tensor | None = None
    sequences: Mapping[str, tuple[tf.Tensor, tf.Tensor]] = field(default_factory=dict)
    numbers: Mapping[str, tf.Tensor] = field(default_factory=dict)


class TwoTowers(Rebuildable, tf_keras.layers.Layer):
    """ShardedEmbedding -> user tower and item tower, each seeing its own side only.

    Args:
        layout: Columns of the encoded batch.
        user_units, item_units: Hidden units of the towers, see `Tower`.
        embeddings: Tables.
        set_groups: Numbers of sets, in the order of the sets; each group has towers of its own,
            which read its sets side by side: see `GroupTower`, and `SetTower` for groups of one.
            Absent, all sets are one group.
        seed: Seed of all initial weights.

    Attributes:
        owned: How its fields and numbers are split by owner.
        set_groups: The groups.
        per_set: Whether there are several groups, of one set each.

    Raises:
        UserError: The layout has no user or no item feature.
        ValueError: The groups are not of as many sets as the tables have.
    """

    def __init__(
        self,
        layout: FeatureLayout,
        user_units: Sequence[int],
        item_units: Sequence[int],
        embeddings: EmbeddingsConfig,
        *,
        set_groups: Sequence[int] = (),
        seed: int = 0,
        name: str = "two_towers",
    ) -> None:
        super().__init__(name=name)
        self.layout = layout
        owned = {f.owner for f in layout.fields} | {d.owner for d in layout.dense}
        for side in ("user", "item"):
            if side not in owned:
                raise UserError(
                    f"The feature spec declares no {side} feature, so there is no {side} tower.",
                    fix=f"declare at least one feature with `owner: {side}`, such as its key",
                )
        self.embeddings = build_embeddings(layout, embeddings, seed=seed)
        tables = self.embeddings
        names = {dim: tables.fields(dim) for dim in tables.dims}
        self.owned = OwnedFields(layout, names, tables.sets)
        # [UR; IR; context] of every set is then nothing but its fields in order
        owners = [OWNERS.index(f.owner) for f in layout.fields]
        sides = user_units or item_units or layout.dense
        self._plain = not sides and len(tables.dims) == 1 and owners == sorted(owners)
        self.set_groups = tuple(set_groups) or (tables.sets,)
        if sum(self.set_groups) != tables.sets or min(self.set_groups) < 1:
            raise ValueError(f"Groups {self.set_groups} are not of {tables.sets} sets.")
        self.per_set = len(self.set_groups) > 1 and set(self.set_groups) == {1}

        def tower(units: Sequence[int], name: str) -> Any:
            if self.per_set:
                return SetTower(units, seed=seed, name=name)
            if len(self.set_groups) > 1:
                return GroupTower(units, self.set_groups, seed=seed, name=name)
            return Tower(units, seed=seed, name=name)

        self.user_tower = tower(user_units, "user_tower")
        self.item_tower = tower(item_units, "item_tower")

    @property
    def fields_width(self) -> int:
        """Columns of all field embeddings together."""
        return self.owned.width

    @property
    def sequence_lengths(self) -> Mapping[str, int]:
        """Multi-valued features that are looked up value by value too -> how many values."""
        return {}

    def towers(
        self, batch: EncodedBatch, training: bool = False, *, gate: tf.Tensor | None = None
    ) -> TowerOutputs:
        """Looks up the embeddings and runs both towers.

        Args:
            batch: The batch.
            training: Whether compiled kernels may be used.
            gate: Factor of the field embeddings, (B, `fields_width`), or None.
        """
        groups = self._groups(batch, training, gate)
        inputs = self.owned.split(groups, self._numbers(batch))
        context = inputs["context"]
        return TowerOutputs(
            user=self.user_tower.represent(inputs["user"]),
            item=self.item_tower.represent(inputs["item"]),
            context=self._beside(context) if context else None,
            fields=groups,
            stream=self._plain_stream(groups),
            sequences=self.sequences(batch),
            numbers=numbers_of(inputs),
        )

    def call(self, batch: EncodedBatch, training: bool = False) -> Any:
        """See `towers`."""
        return self.towers(batch, training=training)

    def group_towers(self, batch: EncodedBatch, training: bool = False) -> dict[str, Any]:
        """What the towers of each group of sets give; see `set_groups`.

        Args:
            batch: The batch.
            training: Whether compiled kernels may be used.

        Returns:
            Owner -> u^g of `user`, i^g of `item`, and what the group's sets give of `context`,
            which is left out where it has no feature: (B, d) of one group, (K, B, d) of several
            where each set is one, else a list of (B, d_g). u^0 to u^(G-1) side by side are UR.
        """
        return self._sides(self._inputs(batch, training))

    def stream(self, batch: EncodedBatch, training: bool = False) -> Any:
        """[UR; IR; context], as experts read it.

        Args:
            batch: The batch.
            training: Whether compiled kernels may be used.

        Returns:
            (B, d); of several groups of sets (K, B, d) where each set is one, else (B, d_g) each.
        """
        groups = self._groups(batch, training, None)
        if self._plain and len(self.set_groups) == 1:
            return self._plain_stream(groups)
        if self._plain and self.per_set:
            return OwnedInputs(groups, None, len(self.set_groups)).per_set()
        inputs = self.owned.split(groups, self._numbers(batch))
        return beside([*self._sides(inputs).values()])

    def set_views(self, batch: EncodedBatch, training: bool = False) -> dict[str, tf.Tensor]:
        """What each set of the embeddings gives the towers to read, set by set.

        Args:
            batch: The batch.
            training: Whether compiled kernels may be used.

        Returns:
            Owner -> (K, B, d): view k holds set k of the owner's fields, and its numbers. With one
            set it is what the tower reads. Owners without a feature are left out.
        """
        inputs = self._inputs(batch, training)
        return {owner: of_owner.per_set() for owner, of_owner in inputs.items() if of_owner}

    def sequences(
        self, batch: EncodedBatch, owners: Sequence[str] = OWNERS
    ) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
        """Embeddings of the sequences that are read value by value; see `TowerOutputs`.

        Raises:
            UserError: The model reads no such multi-valued feature.
        """
        bags = {f.name: f.owner for f in self.layout.bags}
        check_sequences(self.sequence_lengths, bags, "the model")
        return {
            name: self.embeddings.sequence(name, batch["bags"][name][0], length)
            for name, length in self.sequence_lengths.items()
            if bags[name] in owners
        }

    def _beside(self, context: OwnedInputs) -> tf.Tensor:
        """What the towers' outputs have as context, (B, d_c)."""
        return side_by_side(context.per_set()) if self.per_set else context.joined()

    def _sides(self, inputs: Mapping[str, OwnedInputs]) -> dict[str, Any]:
        """See `group_towers`."""

        def view(of: OwnedInputs) -> Any:
            if len(self.set_groups) == 1:
                return of.joined()
            return of.per_set() if self.per_set else of.per_group(self.set_groups)

        views = {owner: view(of) for owner, of in inputs.items() if of}
        views["user"] = self.user_tower(views["user"])
        views["item"] = self.item_tower(views["item"])
        return views

    def _inputs(self, batch: EncodedBatch, training: bool) -> dict[str, OwnedInputs]:
        return self.owned.split(self._groups(batch, training, None), self._numbers(batch))

    def _groups(
        self, batch: EncodedBatch, training: bool, gate: tf.Tensor | None
    ) -> list[FieldGroup]:
        ids = own_columns(batch["ids"], self.layout.id_columns)
        embedded = self.embeddings(ids, batch.get("bags"), training=training)
        gates = None if gate is None else self.owned.gates(gate)
        return self.owned.groups(embedded, gates=gates)

    def _numbers(self, batch: EncodedBatch) -> tf.Tensor:
        numbers = own_columns(batch["dense"], self.layout.number_columns)
        return tf.cast(numbers, self.compute_dtype)  # (B, N)

    def input_labels(self, owner: str) -> list[Label]:
        """What each column of an owner's input is: a feature and a position in it."""
        return self.owned.labels(owner)

    def stream_labels(self) -> list[Label]:
        """What each column of [UR; IR; context] is: as `input_labels`, or an output of a tower."""
        labels: list[Label] = []
        for owner, tower in (("user", self.user_tower), ("item", self.item_tower)):
            if tower.layers:
                labels += [(tower.name, j) for j in range(int(tower.layers[-1].units))]
            else:
                labels += self.input_labels(owner)
        return labels + self.input_labels("context")

    def carry_towers(self, target: TwoTowers, carried: Carried) -> None:
        """Carries both towers' weights over to towers that may read other features."""
        self.user_tower.carry(
            target.user_tower, (self.input_labels("user"), target.input_labels("user")), carried
        )
        self.item_tower.carry(
            target.item_tower, (self.input_labels("item"), target.input_labels("item")), carried
        )

    def _plain_stream(self, fields: list[FieldGroup]) -> tf.Tensor | None:
        """[UR; IR; context] without a copy, where it is nothing but the fields in order."""
        if len(self.set_groups) > 1 or not self._plain:
            return None
        values = fields[0].values
        return tf.reshape(values, [-1, values.shape[1] * values.shape[2]])  # (B, F K w)


def numbers_of(inputs: Mapping[str, OwnedInputs]) -> dict[str, tf.Tensor]:
    """Owner -> its numbers (B, N_o), of owners that have some."""
    return {owner: of.numbers for owner, of in inputs.items() if of.numbers is not None}


def beside(owners: list[Any]) -> Any:
    """What each owner gives, side by side: (B, d), sets (K, B, d), or groups (B, d_g)."""
    if isinstance(owners[0], list):
        return [tf.concat(of_group, axis=-1) for of_group in zip(*owners, strict=True)]
    return tf.concat(owners, axis=-1)


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
        table_configs(layout, config),
        [EmbeddedFeature(f.name, table=f.table, combiner=f.combiner) for f in layout.fields],
        shards=config.shards,
        sets=config.sets,
        seed=seed,
        init=config.init,
        tables_per_width=config.tables_per_width,
        name=name,
    )


def table_configs(layout: FeatureLayout, config: EmbeddingsConfig) -> list[TableConfig]:
    """The tables of a layout, each with its own options where it has some."""
    return [_table(table, config) for table in layout.tables]


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
