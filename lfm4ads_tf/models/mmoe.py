"""The multi-gate mixture of experts, as an upstream."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, Self

import tensorflow as tf
from pydantic import Field

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.interactions.block import mixture_names
from lfm4ads_tf.interactions.experts import ExpertMixture
from lfm4ads_tf.losses.task_loss import plain_loss
from lfm4ads_tf.models.config import NetworkConfig, Units
from lfm4ads_tf.models.task_names import check_task_names
from lfm4ads_tf.models.task_towers import TaskTowers
from lfm4ads_tf.models.two_towers import TowerOutputs, TwoTowers
from lfm4ads_tf.models.upstream import UpstreamModel
from lfm4ads_tf.models.upstream_config import UpstreamConfig
from lfm4ads_tf.strict import StrictModel


class MMoEConfig(StrictModel):
    """Multi-gate mixture of experts.

    Attributes:
        experts: Experts shared by all tasks.
        expert_units: Width of each layer of an expert.
        task_units: Hidden units of each task's tower; empty means logits of the mixture itself.
    """

    experts: int = Field(default=4, ge=1)
    expert_units: Annotated[Units, Field(min_length=1)] = [256, 128]
    task_units: Units = [64]


class MMoE(UpstreamModel):
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

    Raises:
        UserError: See `FoundationModel`.

    Source: Ma et al., Modeling Task Relationships in Multi-task Learning with Multi-gate
    Mixture-of-Experts (KDD 2018); the scenarios' corrections are ours.

    Example:
        >>> import lfm4ads_tf as lfm
        >>> log = lfm.encode(lfm.load_spec("synthetic", {"dataset_options": {"rows": 2000}}))
        >>> model = lfm.MMoE(log.layout, embeddings=lfm.EmbeddingsConfig(dim=4))
        >>> model(next(iter(log.dataset("test", batch_size=32)))).shape
        TensorShape([32, 2])
        >>> model.layer_names
        ['towers', 'mix_click', 'mix_conversion']
    """

    Config = MMoEConfig

    def __init__(
        self,
        layout: FeatureLayout,
        network: NetworkConfig = NetworkConfig(),  # noqa: B008 - frozen
        embeddings: EmbeddingsConfig = EmbeddingsConfig(),  # noqa: B008 - frozen
        mixture: MMoEConfig = MMoEConfig(),  # noqa: B008 - frozen
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(name="mmoe")
        self.layout = layout
        self.task_loss = plain_loss(layout.tasks)
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

    @classmethod
    def create(
        cls,
        layout: FeatureLayout,
        config: UpstreamConfig,
        embeddings: EmbeddingsConfig,
        *,
        seed: int,
    ) -> Self:
        """See `UpstreamModel`."""
        return cls(layout, config.network, embeddings, config.options, seed=seed)

    @classmethod
    def activation_names(cls, config: UpstreamConfig, tasks: Sequence[str]) -> list[str]:
        """`towers`, and the mixture of each task.

        Raises:
            UserError: A task's name cannot be part of a layer's name.
        """
        check_task_names(tasks)
        return ["towers", *mixture_names(tasks)]

    @classmethod
    def handed_over(
        cls, config: UpstreamConfig, tasks: Sequence[str], stored: Collection[str]
    ) -> list[str]:
        """The mixtures of all tasks, else the towers."""
        mixtures = [name for name in mixture_names(tasks) if name in stored]
        return mixtures or super().handed_over(config, tasks, stored)

    @property
    def layer_names(self) -> list[str]:
        """Names of the activations, in order; each can be a CR's layer."""
        return ["towers", *mixture_names(self.layout.tasks)]

    def call(self, batch: EncodedBatch, training: bool = False) -> tf.Tensor:
        """Logits (B, T) of each row's scenario."""
        towers = self.backbone.towers(batch, training=training)
        mixed = self.experts(_stream(towers), training=training)  # (B, T, h)
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


def _stream(towers: TowerOutputs) -> tf.Tensor:
    """x = [UR; IR; context], (B, d)."""
    parts = [towers.user, towers.item]
    if towers.context is not None:
        parts.append(towers.context)
    return tf.concat(parts, axis=-1)  # (B, d_u + d_i + d_c)
