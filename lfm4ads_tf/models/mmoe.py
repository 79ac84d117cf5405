"""The multi-gate mixture of experts, as an upstream."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.interactions.experts import ExpertMixture
from lfm4ads_tf.models.config import MMoEConfig, NetworkConfig
from lfm4ads_tf.models.task_towers import TaskTowers
from lfm4ads_tf.models.two_towers import TowerOutputs, TwoTowers


class MMoE(tf_keras.Model):
    """User tower, item tower, experts shared by all tasks, and one gate and tower per task.

        x = [UR; IR; context],  m_t = sum_e softmax(W_t x)_e f_e(x)
        u_t = TaskTower_t(m_t),  p_{s,t} = sigmoid(w_t u_t + b_t + w_{s,t} u_t + b_{s,t})

    The scenarios' own w_{s,t} and b_{s,t} are as in `ScenarioTaskHeads`.

    Args:
        layout: Columns of the encoded batch; its scenarios and tasks size the towers.
        network: User and item tower, and whether there is a shared logit; its block is not read.
        embeddings: Tables.
        mixture: Experts and task towers.
        seed: Seed of all initial weights.

    Source: Ma et al., Modeling Task Relationships in Multi-task Learning with Multi-gate
    Mixture-of-Experts (KDD 2018); the scenarios' corrections are ours.
    """

    def __init__(
        self,
        layout: FeatureLayout,
        network: NetworkConfig,
        embeddings: EmbeddingsConfig,
        mixture: MMoEConfig,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(name="mmoe")
        self.layout = layout
        self.backbone = TwoTowers(
            layout, network.user_tower, network.item_tower, embeddings, seed=seed, name="backbone"
        )
        tasks = len(layout.tasks)
        self.experts = ExpertMixture(
            mixture.experts, mixture.expert_units, tasks, seed=seed, name="experts"
        )
        self.heads = TaskTowers(
            mixture.task_units,
            len(layout.scenarios),
            tasks,
            shared=network.shared_head,
            seed=seed,
            name="task_towers",
        )

    @property
    def layer_names(self) -> list[str]:
        """Names of the activations, in order; each can be a CR's layer."""
        return layer_names(self.layout.tasks)

    def call(self, batch: EncodedBatch, training: bool = False) -> tf.Tensor:
        """Logits (B, T) of each row's scenario."""
        towers = self.backbone.towers(batch, training=training)
        mixed = self.experts(_stream(towers))  # (B, T, h)
        width = mixed.shape[1] * mixed.shape[2]
        return self.heads(tf.reshape(mixed, [-1, width]), batch["scenario"])  # of (B, T h)

    def represent(self, batch: EncodedBatch) -> dict[str, tf.Tensor]:
        """All representations of a batch.

        Returns:
            `UR` (B, d_u), `IR` (B, d_i), and the sample-level CR of every layer by the layer's
            name: `towers` is x (B, d), `mix_<task>` the task's mixture m_t (B, h).
        """
        towers = self.backbone.towers(batch)
        stream = _stream(towers)
        mixed = tf.unstack(self.experts(stream), axis=1)  # T of (B, h)
        activations = dict(zip(self.layer_names, [stream, *mixed], strict=True))
        return {"UR": towers.user, "IR": towers.item, **activations}


def layer_names(tasks: Sequence[str]) -> list[str]:
    """Names of the model's activations, in order."""
    return ["towers", *(f"mix_{task}" for task in tasks)]


def _stream(towers: TowerOutputs) -> tf.Tensor:
    """x = [UR; IR; context], (B, d)."""
    parts = [towers.user, towers.item]
    if towers.context is not None:
        parts.append(towers.context)
    return tf.concat(parts, axis=-1)  # (B, d_u + d_i + d_c)
