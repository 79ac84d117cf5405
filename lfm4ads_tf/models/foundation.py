"""The large foundation model (upstream)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import tensorflow as tf
import tf_keras

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.interactions.block import InteractionBlock
from lfm4ads_tf.models.backbone import Backbone
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.heads import build_heads
from lfm4ads_tf.models.two_towers import TowerOutputs
from lfm4ads_tf.seeding import derive

BRANCHES = ("content", "ad")
"""Names of the branches; a row's `branch` is the position of its own."""


class FoundationModel(tf_keras.Model):
    """User tower, item tower, mix tower and heads, trained on the logs of all scenarios.

        UR = UserTower(user fields), IR = ItemTower(item fields)
        p_{s,t} = sigmoid(head_{s,t}(Block(UR, IR, context)))

    With branches, content and ads have a block and heads of their own over the same towers. A row
    passes through its own branch only, so it costs one block and trains one. The ad branch is
    `backbone.block` and `heads`: what a downstream takes over has the same place with and without
    branches.

    Args:
        layout: Columns of the encoded batch; its scenarios and tasks size the heads.
        network: Towers, block and heads.
        embeddings: Tables.
        branches: Whether there are two branches.
        seed: Seed of all initial weights.

    Source: LFM4Ads (arXiv 2508.14948), upstream; how its branches share towers is not public.
    """

    def __init__(
        self,
        layout: FeatureLayout,
        network: NetworkConfig,
        embeddings: EmbeddingsConfig,
        *,
        branches: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(name="foundation")
        self.layout = layout
        self.branches = branches
        scenarios, tasks = len(layout.scenarios), len(layout.tasks)
        self.backbone = Backbone(layout, network, embeddings, seed=seed)
        self.heads = build_heads(network, scenarios, tasks, seed=seed)
        if branches:
            own = derive(seed, "content")
            self.content_block = InteractionBlock(
                network.block, tasks=layout.tasks, seed=own, name="content_block"
            )
            self.content_heads = build_heads(
                network, scenarios, tasks, seed=own, name="content_heads"
            )

    @property
    def layer_names(self) -> list[str]:
        """Names of the activations, in order; each can be a CR's layer."""
        names = self.backbone.block.layer_names
        return branch_layers(names) if self.branches else names

    def call(self, batch: EncodedBatch, training: bool = False) -> tf.Tensor:
        """Logits (B, T) of each row's scenario, from its own branch."""
        if not self.branches:
            towers = self.backbone.towers(batch, training=training)
            _, stream = self.backbone.interact(towers, training=training)
            return self.heads(stream, batch["scenario"])
        branch = tf.cast(batch["branch"], tf.int32)
        rows = tf.dynamic_partition(tf.range(tf.shape(branch)[0]), branch, len(BRANCHES))
        # Rows of one branch side by side: ids are moved instead of the wider embeddings, and the
        # parts of what the towers give are then consecutive.
        ordered = _gather(batch, tf.concat(rows, axis=0))
        towers = self.backbone.towers(ordered, training=training)
        sizes = [tf.size(of) for of in rows]
        scenarios = tf.split(ordered["scenario"], sizes)
        logits = []
        for own, scenario, (block, heads) in zip(
            _split(towers, sizes), scenarios, self._branches(), strict=True
        ):
            _, stream = self.backbone.interact(own, block=block, training=training)
            logits.append(heads(stream, scenario))  # (B_branch, T)
        return tf.dynamic_stitch(rows, logits)  # (B, T)

    def represent(self, batch: EncodedBatch) -> dict[str, tf.Tensor]:
        """All representations of a batch.

        Returns:
            `UR` (B, d_u), `IR` (B, d_i), and the sample-level CR of every layer by the layer's
            name (B, d_layer). With branches every row passes through both of them, and the
            layers are `towers` and `<branch>.<layer>`.
        """
        towers = self.backbone.towers(batch)
        found = {"UR": towers.user, "IR": towers.item}
        if not self.branches:
            return found | self.backbone.interact(towers)[0]
        for name, (block, _) in zip(BRANCHES, self._branches(), strict=True):
            activations, _ = self.backbone.interact(towers, block=block)
            found["towers"] = activations.pop("towers")
            found |= {f"{name}.{layer}": value for layer, value in activations.items()}
        return found

    def _branches(self) -> Iterable[tuple[InteractionBlock, tf_keras.layers.Layer]]:
        """Block and heads of every branch."""
        return (
            (self.content_block, self.content_heads),
            (self.backbone.block, self.heads),
        )


def branch_layers(names: Sequence[str]) -> list[str]:
    """Names of the layers of all branches, from those of one block; x_0 is the same for all."""
    own = [name for name in names if name != "towers"]
    return ["towers", *(f"{branch}.{name}" for branch in BRANCHES for name in own)]


def _gather(batch: EncodedBatch, rows: tf.Tensor) -> EncodedBatch:
    """What the towers and the heads read of some rows."""
    bags = {
        name: (tf.gather(ids, rows), None if weights is None else tf.gather(weights, rows))
        for name, (ids, weights) in batch.get("bags", {}).items()
    }
    return {
        "ids": tf.gather(batch["ids"], rows),
        "bags": bags,
        "dense": tf.gather(batch["dense"], rows),
        "scenario": tf.gather(batch["scenario"], rows),
    }


def _split(towers: TowerOutputs, sizes: list[tf.Tensor]) -> list[TowerOutputs]:
    """The towers' outputs for consecutive parts of the rows."""

    def parts(value: tf.Tensor | None) -> list[tf.Tensor | None]:
        return [None] * len(sizes) if value is None else tf.split(value, sizes)

    fields = [parts(values) for values in towers.fields]
    rest = [parts(v) for v in (towers.user, towers.item, towers.context, towers.stream)]
    return [
        TowerOutputs(user, item, context, [of[k] for of in fields], stream)
        for k, (user, item, context, stream) in enumerate(zip(*rest, strict=True))
    ]
