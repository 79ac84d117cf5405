"""The large foundation model (upstream)."""

from __future__ import annotations

import tensorflow as tf
import tf_keras

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.models.backbone import Backbone
from lfm4ads_tf.models.batch import EncodedBatch
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.heads import ScenarioTaskHeads


class FoundationModel(tf_keras.Model):
    """User tower, item tower, mix tower and heads, trained on the logs of all scenarios.

        UR = UserTower(user fields), IR = ItemTower(item fields)
        p_{s,t} = sigmoid(head_{s,t}(Block(UR, IR, context)))

    Args:
        layout: Columns of the encoded batch; its scenarios and tasks size the heads.
        network: Towers, block and heads.
        embeddings: Tables.
        seed: Seed of all initial weights.

    Source: LFM4Ads (arXiv 2508.14948), upstream.
    """

    def __init__(
        self,
        layout: FeatureLayout,
        network: NetworkConfig,
        embeddings: EmbeddingsConfig,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(name="foundation")
        self.layout = layout
        self.backbone = Backbone(layout, network, embeddings, seed=seed)
        self.heads = ScenarioTaskHeads(
            len(layout.scenarios), len(layout.tasks), shared=network.shared_head, seed=seed
        )

    @property
    def layer_names(self) -> list[str]:
        """Names of the activations, in order; each can be a CR's layer."""
        return self.backbone.block.layer_names

    def call(self, batch: EncodedBatch, training: bool = False) -> tf.Tensor:
        """Logits (B, T) of each row's scenario."""
        towers = self.backbone.towers(batch, training=training)
        _, stream = self.backbone.interact(towers, training=training)
        return self.heads(stream, batch["scenario"])

    def represent(self, batch: EncodedBatch) -> dict[str, tf.Tensor]:
        """All representations of a batch.

        Returns:
            `UR` (B, d_u), `IR` (B, d_i), and the sample-level CR of every layer by the layer's
            name (B, d_layer).
        """
        towers = self.backbone.towers(batch)
        activations, _ = self.backbone.interact(towers)
        return {"UR": towers.user, "IR": towers.item, **activations}
