"""The Isomorphic Interaction Module: the mix tower's structure over stored UR and IR."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import tensorflow as tf
import tf_keras

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.embeddings.table import ShardedEmbedding
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.interactions.block import (
    InteractionBlock,
    check_joined,
    field_dim,
    sequence_lengths,
)
from lfm4ads_tf.interactions.block_reads import BlockReads
from lfm4ads_tf.interactions.config import BlockConfig
from lfm4ads_tf.interactions.field_group import FieldGroup
from lfm4ads_tf.interactions.inputs import BlockInputs
from lfm4ads_tf.interactions.penalties import Penalties
from lfm4ads_tf.interactions.repeated import repeated
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.heads import build_heads
from lfm4ads_tf.models.owned_fields import OwnedFields
from lfm4ads_tf.models.two_towers import (
    build_embeddings,
    embedding_width,
    own_columns,
)
from lfm4ads_tf.rebuildable import Rebuildable
from lfm4ads_tf.seeding import derive, glorot

OUTPUT = "output"


class IsomorphicModule(Rebuildable, tf_keras.layers.Layer):
    """CR' = Block([UR; IR; context]) with stored UR, IR and the upstream's block structure.

        joined = [CR' (* sigmoid(W [CR'; p_u; p_i] + b)); p_u; p_i]       p: presence of UR, IR

    x_0 has the upstream's columns, so that the upstream's kernels mean the same here. UR and IR
    are zero where the key has none. Context features are looked up in tables of the module's own;
    those that the downstream does not read are zero.

    Layers such as the factorisation machine read field embeddings. Where a tower has no layer, its
    representation consists of them; else the whole representation, projected to the width of the
    first such layer, is one field. A side without layers gives its numbers too.

    Args:
        layout: What the downstream reads.
        upstream: What the upstream reads; its scenarios are not read.
        network: The upstream's towers and block.
        embeddings: The upstream's tables.
        layer: Activation that is CR'; `output` is the block's output.
        gate: Whether CR' is gated.
        head: Whether there is a logit of its own.
        copied: Whether the upstream's weights will be copied; new projections then start small.
        seed: Seed of the initial weights.

    Source: LFM4Ads (arXiv 2508.14948), module level; presence flags, gate and logit are ours.
    """

    sources = ("UR", "IR")

    def __init__(
        self,
        layout: FeatureLayout,
        upstream: FeatureLayout,
        network: NetworkConfig,
        embeddings: EmbeddingsConfig,
        *,
        layer: str = OUTPUT,
        gate: bool = False,
        head: bool = False,
        copied: bool = True,
        seed: int = 0,
        name: str = "isomorphic",
    ) -> None:
        super().__init__(name=name)
        module_seed = derive(seed, name)
        context = [f.name for f in layout.fields if f.owner == "context"]
        numbers = [d.name for d in layout.dense if d.owner == "context"]
        self.context = layout.only([*context, *numbers])
        self.layer = layer
        self.copied = copied
        self.embeddings: ShardedEmbedding | None = None
        if context:
            self.embeddings = build_embeddings(
                self.context, embeddings, seed=module_seed, name=f"{name}_embeddings"
            )
        check_block(network.block)
        self._owned: OwnedFields | None = None
        if self.embeddings is not None:
            tables = self.embeddings
            names = {dim: tables.fields(dim) for dim in tables.dims}
            self._owned = OwnedFields(self.context, names, tables.sets)
        self.plan = _Plan(upstream, network, embeddings)
        self.block = InteractionBlock(
            network.block, tasks=layout.tasks, seed=module_seed, name=f"{name}_block"
        )
        self.projections = {}
        dim = field_dim(network.block)
        if dim is not None:
            self.projections = {
                side: tf_keras.layers.Dense(
                    dim,
                    use_bias=False,
                    kernel_initializer=_Scaled(
                        module_seed, f"{name}/{side}", 0.1 if copied else 1.0
                    ),
                    name=f"{name}_project_{side}",
                )
                for side, groups in self.plan.groups.items()
                if groups is None
            }
        self.gate = _Gate(module_seed, f"{name}_gate") if gate else None
        self.heads = None
        if head:
            self.heads = build_heads(
                network, 0, len(layout.tasks), seed=module_seed, name=f"{name}_heads"
            )

    def call(
        self, batch: EncodedBatch, training: bool = False, penalties: Penalties | None = None
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Runs the module.

        Args:
            batch: The batch.
            training: Whether dropout and compiled kernels apply.
            penalties: Gets what the block's layers add to the loss.

        Returns:
            What joins the downstream's own activation (B, d + 2), and the logits (B, T) or None.
        """
        activations, output = self.activations(batch, training=training, penalties=penalties)
        rows = tf.shape(batch["ids"])[0]
        stored = [self._stored(batch, name, rows) for name in self.sources]
        present = tf.concat([s[:, -1:] for s in stored], axis=-1)  # (B, 2)
        cross = output if self.layer == OUTPUT else activations[self.layer]  # (B, d)
        if self.gate is not None:
            cross = self.gate(cross, present)
        logits = None if self.heads is None else self.heads(output, batch["scenario"])
        return tf.concat([cross, present], axis=-1), logits

    def activations(
        self, batch: EncodedBatch, training: bool = False, penalties: Penalties | None = None
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """The block's activations by name and its output (B, d); arguments as in `call`."""
        rows = tf.shape(batch["ids"])[0]
        vectors = {
            side: self._stored(batch, name, rows)[:, :-1]  # (B, d_side)
            for side, name in zip(("user", "item"), self.sources, strict=True)
        }
        fields: list[FieldGroup] = []
        numbers: dict[str, tf.Tensor] = {}
        for side, vector in vectors.items():
            groups = self.plan.groups[side]
            if groups is not None:  # no layer: [fields; numbers]
                sizes = [len(names) * width for names, width in groups]
                rest = int(vector.shape[-1]) - sum(sizes)
                pieces = tf.split(vector, [*sizes, rest], axis=-1)
                if rest:
                    numbers[side] = pieces[-1]  # (B, N_side)
                for (names, width), piece in zip(groups, pieces, strict=False):
                    values = tf.reshape(piece, [-1, len(names), width])  # (B, F, K w)
                    owners = [side] * len(names)
                    fields.append(FieldGroup(values, names, owners, self.plan.sets))
            elif side in self.projections:
                values = self.projections[side](vector)[:, tf.newaxis, :]  # (B, 1, dim)
                # no feature's name: what was learned for a feature means another thing here
                fields.append(FieldGroup(values, [_tower(side)], [side]))
        context, more, of_context = self._context(batch, training)
        if of_context is not None:
            numbers["context"] = of_context
        inputs = BlockInputs(
            user=vectors["user"],
            item=vectors["item"],
            context=context,
            fields=[*fields, *more],
            numbers=numbers,
            multi_valued=self.plan.multi_valued,
        )
        return self.block(inputs, training=training, penalties=penalties)

    def _context(
        self, batch: EncodedBatch, training: bool
    ) -> tuple[tf.Tensor | None, list[FieldGroup], tf.Tensor | None]:
        """The context part of x_0 (B, d_c), and field embeddings and numbers it consists of."""
        if not self.plan.context:
            return None, [], None
        known: dict[str, tf.Tensor] = {}
        groups: list[FieldGroup] = []
        if self.embeddings is not None and self._owned is not None:
            ids = own_columns(batch["ids"], self.context.id_columns)  # (B, F_single)
            bags = {f.name: batch["bags"][f.name] for f in self.context.bags}
            groups = self._owned.groups(self.embeddings(ids, bags, training=training))
            for group in groups:
                known |= dict(zip(group.names, tf.unstack(group.values, axis=1), strict=True))
        numbers = own_columns(batch["dense"], self.context.number_columns)
        numbers = tf.cast(numbers, self.compute_dtype)  # (B, N_c)
        start = 0
        for dense in self.context.dense:
            known[dense.name] = numbers[:, start : start + dense.width]  # (B, width)
            start += dense.width
        rows = tf.shape(batch["ids"])[0]
        zeros = [tf.zeros([rows, width], self.compute_dtype) for _, width in self.plan.context]
        parts = [known.get(n, z) for (n, _), z in zip(self.plan.context, zeros, strict=True)]
        of_numbers = parts[len(parts) - self.plan.context_numbers :]
        context_numbers = tf.concat(of_numbers, axis=-1) if of_numbers else None  # (B, N_c)
        return tf.concat(parts, axis=-1), groups, context_numbers

    def _stored(self, batch: EncodedBatch, name: str, rows: tf.Tensor) -> tf.Tensor:
        """A stored representation and its flag of presence, (B, d + 1)."""
        return repeated(tf.cast(batch["representations"][name], self.compute_dtype), rows)


def check_block(block: BlockConfig) -> None:
    """Refuses a block that the module cannot have.

    Raises:
        UserError: Each set of embeddings has a block, or a layer reads sequences, in place of which
            there are stored representations.
    """
    check_joined(block, "the isomorphic module")
    read = sequence_lengths(block)
    if read:
        raise UserError(
            "The isomorphic module has stored representations in place of sequences, which a layer "
            "of the upstream's block reads.",
            received=", ".join(read),
            fix="use a warm start (module/warm_start/<level>) with this upstream",
        )


def module_reads(before: BlockReads, read: BlockReads, network: NetworkConfig) -> BlockReads:
    """What the module's block reads: what stored representations hold, and the context.

    Args:
        before: What the upstream's block reads, with owners.
        read: What the module may read of the log.
        network: The upstream's towers; one with units gives one field, and no number.
    """
    whole = {"user": not network.user_tower, "item": not network.item_tower}
    kept = [*(side for side, is_whole in whole.items() if is_whole), "context"]
    fields = [
        name
        for name in before.fields
        if before.owners[name] in kept and (before.owners[name] != "context" or name in read.fields)
    ]
    return replace(
        before,
        fields=[*fields, *(_tower(side) for side, is_whole in whole.items() if not is_whole)],
        # those of the context that the downstream does not read are zeros
        numbers=[name for name in before.numbers if before.owners[name] in kept],
    )


def _tower(side: str) -> str:
    """Name of the field that stands for the fields below a tower with units."""
    return f"{side} tower"


class _Plan:
    """The columns of the upstream's x_0.

    Attributes:
        context: Name and width of each context feature, in order, numbers last.
        context_numbers: How many of them are numbers.
        groups: Side -> names and width K D of each group of field embeddings that a stored
            representation begins with; None where the tower has layers.
        sets: K.
        multi_valued: The upstream's multi-valued features.
    """

    def __init__(
        self, layout: FeatureLayout, network: NetworkConfig, embeddings: EmbeddingsConfig
    ) -> None:
        of_table = {t.name: embedding_width(t, embeddings) for t in layout.tables}
        names: dict[int, list[str]] = {dim: [] for dim in of_table.values()}
        for field in layout.fields:
            names[of_table[field.table]].append(field.name)
        owned = OwnedFields(layout, names, embeddings.sets)
        self.sets = embeddings.sets
        self.multi_valued = [field.name for field in layout.bags]
        self.context: list[tuple[str, int]] = [
            (name, dim * self.sets)
            for dim, fields in owned.fields_of("context").items()
            for name in fields
        ]
        of_numbers = [(d.name, d.width) for d in layout.dense if d.owner == "context"]
        self.context += of_numbers
        self.context_numbers = len(of_numbers)
        self.groups: dict[str, list[tuple[list[str], int]] | None] = {
            side: None
            if units
            else [(fields, dim * self.sets) for dim, fields in owned.fields_of(side).items()]
            for side, units in (("user", network.user_tower), ("item", network.item_tower))
        }


class _Gate(Rebuildable, tf_keras.layers.Layer):
    """x * sigmoid(W [x; p] + b)."""

    def __init__(self, seed: int, name: str) -> None:
        super().__init__(name=name)
        self._seed = seed

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes W for the width of x."""
        self.dense = tf_keras.layers.Dense(
            int(input_shape[-1]),
            activation="sigmoid",
            kernel_initializer=glorot(self._seed, self.name),
            name="kernel",
            dtype=self.dtype_policy,
        )
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
        """(B, d) and (B, 2) -> (B, d)."""
        return inputs * self.dense(tf.concat([inputs, present], axis=-1))


class _Scaled(tf_keras.initializers.Initializer):
    """Glorot-uniform times a factor."""

    def __init__(self, seed: int, name: str, factor: float) -> None:
        self._arguments = {"seed": seed, "name": name, "factor": factor}
        self._initial = glorot(seed, name)
        self._factor = factor

    def __call__(self, shape: Any, dtype: Any = None, **_: Any) -> tf.Tensor:
        """Values of a shape."""
        return self._factor * self._initial(shape, dtype)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return self._arguments
