"""The small model of one scenario (downstream)."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.models.backbone import Backbone
from lfm4ads_tf.models.batch import EncodedBatch
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.heads import ScenarioTaskHeads
from lfm4ads_tf.transfer.adapter import Adapter


class DownstreamModel(tf_keras.Model):
    """Own tables, the upstream's block class, and whatever transfer is plugged in.

        x_0 = [UR; IR; context] * gate(representations); adapted representations
        p_t = sigmoid(head_t(Block(x_0)))

    Args:
        layout: Columns of the encoded batch; its tasks size the heads.
        network: Towers and block.
        embeddings: Tables.
        adapters: Feature-level transfer; none for the method `none`.
        seed: Seed of all initial weights.

    Source: LFM4Ads (arXiv 2508.14948), downstream.
    """

    def __init__(
        self,
        layout: FeatureLayout,
        network: NetworkConfig,
        embeddings: EmbeddingsConfig,
        *,
        adapters: Sequence[Adapter] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(name="downstream")
        self.layout = layout
        self.backbone = Backbone(layout, network, embeddings, seed=seed)
        self.adapters = list(adapters)
        self.heads = ScenarioTaskHeads(0, len(layout.tasks), seed=seed)

    def call(self, batch: EncodedBatch, training: bool = False) -> tf.Tensor:
        """Logits (B, T)."""
        towers = self.backbone.towers(batch, training=training)
        extra: list[tf.Tensor] = []
        gate: tf.Tensor | None = None
        parts = [towers.user, towers.item]
        width = sum(int(p.shape[-1]) for p in [*parts, towers.context] if p is not None)
        for adapter in self.adapters:
            adapted = adapter(batch["representations"], width=width)
            extra += adapted.extra
            if adapted.gate is not None:
                gate = adapted.gate if gate is None else gate * adapted.gate
        _, stream = self.backbone.interact(towers, extra=tuple(extra), gate=gate, training=training)
        return self.heads(stream, batch["scenario"])
