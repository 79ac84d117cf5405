"""The one-gate mixture of experts, as an upstream."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.interactions.experts import ExpertMixture
from lfm4ads_tf.models.config import NetworkConfig, Units
from lfm4ads_tf.models.mixture_model import MixtureModel
from lfm4ads_tf.strict import StrictModel


class OMoEConfig(StrictModel):
    """One-gate mixture of experts.

    Attributes:
        experts: Experts shared by all tasks.
        expert_units: Width of each layer of an expert.
        gate_units: Hidden units of the gate; empty means a softmax of W x.
        gate_bias: Whether the gate's scores have a bias.
        task_units: Hidden units of each task's tower; empty means logits of the mixture itself.
    """

    experts: int = Field(default=4, ge=1)
    expert_units: Annotated[Units, Field(min_length=1)] = [256, 128]
    gate_units: Units = []
    gate_bias: bool = False
    task_units: Units = [64]


class OMoE(MixtureModel):
    """z_t = TaskTower_t(m) with m = sum_e softmax(G(x))_e f_e(x), one gate G for all tasks.

    See `MixtureModel`.

    Args:
        layout: Columns of the encoded batch.
        network: User and item tower, and whether there is a shared logit; its block is not read.
        embeddings: Tables.
        mixture: Experts, gate and task towers.
        seed: Seed of all initial weights.

    Source: Ma et al., Modeling Task Relationships in Multi-task Learning with Multi-gate
    Mixture-of-Experts (KDD 2018), section 4.1.
    """

    Config = OMoEConfig
    one_mixture = True

    def __init__(
        self,
        layout: FeatureLayout,
        network: NetworkConfig = NetworkConfig(),  # noqa: B008 - frozen
        embeddings: EmbeddingsConfig = EmbeddingsConfig(),  # noqa: B008 - frozen
        mixture: OMoEConfig = OMoEConfig(),  # noqa: B008 - frozen
        *,
        seed: int = 0,
    ) -> None:
        experts = ExpertMixture(
            mixture.experts,
            mixture.expert_units,
            1,
            gate_units=mixture.gate_units,
            gate_bias=mixture.gate_bias,
            seed=seed,
        )
        super().__init__(
            layout,
            network,
            embeddings,
            mixture,
            experts,
            mixture.task_units,
            seed=seed,
            name="omoe",
        )
