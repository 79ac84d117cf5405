"""The Isomorphic Interaction Module: the mix tower's structure over stored UR and IR."""

from __future__ import annotations

import tensorflow as tf
import tf_keras

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.embeddings.table import ShardedEmbedding
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.interactions.block import BlockInputs, InteractionBlock
from lfm4ads_tf.interactions.config import FmConfig
from lfm4ads_tf.interactions.repeated import repeated
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.heads import build_heads
from lfm4ads_tf.models.two_towers import (
    Label,
    build_embeddings,
    embedding_width,
    own_columns,
)
from lfm4ads_tf.seeding import derive, glorot

OUTPUT = "output"


class IsomorphicModule(tf_keras.layers.Layer):
    """CR' = Block([UR; IR; context]) with stored UR, IR and the upstream's block structure.

        joined = [CR' (* sigmoid(W [CR'; p_u; p_i] + b)); p_u; p_i]       p: presence of UR, IR

    x_0 has the upstream's columns, so that the upstream's kernels mean the same here. UR and IR
    are zero where the key has none. Context features are looked up in tables of the module's own;
    those that the downstream does not read are zero.

    The factorisation machine reads field embeddings. Where a tower has no layer, its
    representation consists of them; else the whole representation, projected, is one field.

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
        own = derive(seed, name)
        context = [f.name for f in layout.fields if f.owner == "context"]
        numbers = [d.name for d in layout.dense if d.owner == "context"]
        self.context = layout.only([*context, *numbers])
        self.layer = layer
        self.copied = copied
        self.embeddings: ShardedEmbedding | None = None
        if context:
            self.embeddings = build_embeddings(
                self.context, embeddings, seed=own, name=f"{name}_embeddings"
            )
        self.plan = _Plan(upstream, network, embeddings)
        self.block = InteractionBlock(
            network.block, tasks=layout.tasks, seed=own, name=f"{name}_block"
        )
        self.projections = {}
        fm = next((part for part in network.block.layers if isinstance(part, FmConfig)), None)
        if fm is not None:
            self.projections = {
                side: tf_keras.layers.Dense(
                    fm.dim,
                    use_bias=False,
                    kernel_initializer=_scaled(own, f"{name}/{side}", 0.1 if copied else 1.0),
                    name=f"{name}_project_{side}",
                )
                for side, groups in self.plan.groups.items()
                if groups is None
            }
        self.gate = _Gate(own, f"{name}_gate") if gate else None
        self.heads = None
        if head:
            self.heads = build_heads(network, 0, len(layout.tasks), seed=own, name=f"{name}_heads")

    def call(
        self, batch: EncodedBatch, training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Runs the module.

        Returns:
            What joins the downstream's own activation (B, d + 2), and the logits (B, T) or None.
        """
        activations, output = self.activations(batch, training=training)
        rows = tf.shape(batch["ids"])[0]
        stored = [repeated(batch["representations"][s], rows) for s in self.sources]
        present = tf.concat([s[:, -1:] for s in stored], axis=-1)  # (B, 2)
        cross = output if self.layer == OUTPUT else activations[self.layer]  # (B, d)
        if self.gate is not None:
            cross = self.gate(cross, present)
        logits = None if self.heads is None else self.heads(output, batch["scenario"])
        return tf.concat([cross, present], axis=-1), logits

    def activations(
        self, batch: EncodedBatch, training: bool = False
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """The block's activations by name and its output (B, d)."""
        rows = tf.shape(batch["ids"])[0]
        vectors = {
            side: repeated(batch["representations"][name], rows)[:, :-1]  # (B, d_side)
            for side, name in zip(("user", "item"), self.sources, strict=True)
        }
        fields: list[tf.Tensor] = []
        for side, vector in vectors.items():
            groups = self.plan.groups[side]
            if groups is not None:
                sizes = [count * width for count, width in groups]
                rest = int(vector.shape[-1]) - sum(sizes)
                pieces = tf.split(vector, [*sizes, rest], axis=-1)
                for (count, width), piece in zip(groups, pieces, strict=False):
                    fields.append(tf.reshape(piece, [-1, count, width]))  # (B, F, w)
            elif side in self.projections:
                fields.append(self.projections[side](vector)[:, tf.newaxis, :])  # (B, 1, dim)
        context, more = self._context(batch, training)
        inputs = BlockInputs(
            user=vectors["user"], item=vectors["item"], context=context, fields=[*fields, *more]
        )
        return self.block(inputs, training=training)

    def _context(
        self, batch: EncodedBatch, training: bool
    ) -> tuple[tf.Tensor | None, list[tf.Tensor]]:
        """The context part of x_0 (B, d_c), and the field embeddings it consists of."""
        if not self.plan.context:
            return None, []
        known: dict[str, tf.Tensor] = {}
        fields: list[tf.Tensor] = []
        if self.embeddings is not None:
            ids = own_columns(batch["ids"], self.context.id_columns)  # (B, F_single)
            bags = {f.name: batch["bags"][f.name] for f in self.context.bags}
            for dim, values in self.embeddings(ids, bags, training=training).items():
                names = self.embeddings.fields(dim)
                width = self.embeddings.sets * dim
                fields.append(tf.reshape(values, [-1, len(names), width]))  # (B, F_w, K w)
                known |= dict(zip(names, tf.unstack(fields[-1], axis=1), strict=True))
        numbers = own_columns(batch["dense"], self.context.number_columns)  # (B, N_c)
        start = 0
        for dense in self.context.dense:
            known[dense.name] = numbers[:, start : start + dense.width]  # (B, width)
            start += dense.width
        rows = tf.shape(batch["ids"])[0]
        parts = [known.get(n, tf.zeros([rows, width])) for n, width in self.plan.context]
        return tf.concat(parts, axis=-1), fields


class _Plan:
    """The columns of the upstream's x_0.

    Attributes:
        context: Name and width of each context feature, in order.
        groups: Side -> (fields, width) of each group of field embeddings that a stored
            representation begins with; None where the tower has layers.
    """

    def __init__(
        self, layout: FeatureLayout, network: NetworkConfig, embeddings: EmbeddingsConfig
    ) -> None:
        of_table = {t.name: embedding_width(t, embeddings) for t in layout.tables}
        widths = list(dict.fromkeys(of_table.values()))
        by_owner: dict[str, list[Label]] = {"user": [], "item": [], "context": []}
        for dim in widths:
            for field in layout.fields:
                if of_table[field.table] == dim:
                    by_owner[field.owner].append((field.name, dim * embeddings.sets))
        self.context: list[Label] = by_owner["context"] + [
            (d.name, d.width) for d in layout.dense if d.owner == "context"
        ]
        self.groups: dict[str, list[tuple[int, int]] | None] = {}
        for side, units in (("user", network.user_tower), ("item", network.item_tower)):
            mine = [width for _, width in by_owner[side]]
            counts = [(mine.count(w), w) for w in dict.fromkeys(mine)]
            self.groups[side] = None if units else counts


class _Gate(tf_keras.layers.Layer):
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
        )
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
        """(B, d) and (B, 2) -> (B, d)."""
        return inputs * self.dense(tf.concat([inputs, present], axis=-1))


def _scaled(seed: int, name: str, factor: float) -> tf_keras.initializers.Initializer:
    """Glorot-uniform times a factor."""
    initial = glorot(seed, name)
    return lambda shape, dtype=None, **_: factor * initial(shape, dtype)
