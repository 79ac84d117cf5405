"""Towers and interaction block: what upstream and downstream have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import tensorflow as tf

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.interactions.block import InteractionBlock, reads_towers
from lfm4ads_tf.interactions.inputs import BlockInputs
from lfm4ads_tf.interactions.observed_tokens import ObservedTokens
from lfm4ads_tf.interactions.penalties import Penalties
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.two_towers import TowerOutputs, TwoTowers


class Backbone(TwoTowers):
    """ShardedEmbedding -> user tower, item tower -> InteractionBlock.

    Where each set of the embeddings has a block, it has towers too.

    Args:
        layout: Columns of the encoded batch.
        network: Towers and block.
        embeddings: Tables.
        seed: Seed of all initial weights.

    Raises:
        UserError: The layout has no user or no item feature, or towers have units that the block
            does not read.
    """

    def __init__(
        self,
        layout: FeatureLayout,
        network: NetworkConfig,
        embeddings: EmbeddingsConfig,
        *,
        seed: int = 0,
        name: str = "backbone",
    ) -> None:
        check_towers(network)
        super().__init__(
            layout,
            network.user_tower,
            network.item_tower,
            embeddings,
            set_groups=[1] * embeddings.sets if network.block.sets == "each" else (),
            seed=seed,
            name=name,
        )
        self.block = InteractionBlock(
            network.block, tasks=layout.tasks, sets=embeddings.sets, seed=seed, name="block"
        )

    @property
    def sequence_lengths(self) -> Mapping[str, int]:
        """Those that the block's layers read."""
        return self.block.sequence_lengths

    def call(
        self, batch: EncodedBatch, training: bool = False
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Runs towers and block.

        Args:
            batch: The batch.
            training: Whether dropout and compiled kernels apply.

        Returns:
            Every activation by name, each (B, d_layer), and the block's output (B, d).
        """
        return self.interact(self.towers(batch, training=training), training=training)

    def interact(
        self,
        towers: TowerOutputs,
        *,
        extra: tuple[tf.Tensor, ...] = (),
        gate: tf.Tensor | None = None,
        block: InteractionBlock | None = None,
        training: bool = False,
        penalties: Penalties | None = None,
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Runs the interaction block, or another one, see `InteractionBlock.call`."""
        inputs = replace(self._block_inputs(towers), extra=extra, gate=gate)
        block = self.block if block is None else block
        return block(inputs, training=training, penalties=penalties)

    def observed(self, batch: EncodedBatch) -> dict[str, tf.Tensor | ObservedTokens]:
        """What the block's layers are observed by, see `InteractionBlock.observed`."""
        if not self.block.observes:
            return {}
        return self.block.observed(self._block_inputs(self.towers(batch)))

    def _block_inputs(self, towers: TowerOutputs) -> BlockInputs:
        """What a block reads of the towers."""
        return BlockInputs(
            user=towers.user,
            item=towers.item,
            context=towers.context,
            fields=towers.fields,
            stream=towers.stream,
            sequences=towers.sequences,
            numbers=towers.numbers,
            multi_valued=[f.name for f in self.layout.bags],
        )


def check_towers(network: NetworkConfig) -> None:
    """Refuses towers whose units nothing would train.

    Args:
        network: Towers and block.

    Raises:
        UserError: They have units, and the block reads the fields below them alone.
    """
    if (network.user_tower or network.item_tower) and not reads_towers(network.block):
        layers = ", ".join(layer.key for layer in network.block.layers)
        raise UserError(
            "The interaction block reads no tower's output, so towers with units would learn "
            "nothing.",
            received=f"user_tower: {network.user_tower}, item_tower: {network.item_tower}, a "
            f"{network.block.structure} block of {layers}",
            fix="set user_tower and item_tower to [], or add a layer that reads the stream, such "
            "as {type: cross} in a parallel block",
        )
