"""Progressive layered extraction, as an upstream."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.interactions.progressive_extraction import ProgressiveExtraction
from lfm4ads_tf.models.config import NetworkConfig, Units
from lfm4ads_tf.models.mixture_model import MixtureModel
from lfm4ads_tf.strict import StrictModel


class PLEConfig(StrictModel):
    """Progressive layered extraction.

    Attributes:
        levels: Levels L; 1 is the paper's customized gate control.
        task_experts: Experts of each task in a level, K1.
        shared_experts: Shared experts of a level, K2.
        expert_units: Width of each layer of an expert.
        gate_units: Hidden units of each gate; empty means a softmax of W z.
        gate_bias: Whether a gate's scores have a bias.
        task_units: Hidden units of each task's tower; empty means logits of the mixture itself.
    """

    levels: int = Field(default=2, ge=1)
    task_experts: int = Field(default=1, ge=1)
    shared_experts: int = Field(default=2, ge=1)
    expert_units: Annotated[Units, Field(min_length=1)] = [256, 128]
    gate_units: Units = []
    gate_bias: bool = False
    task_units: Units = [64]


class PLE(MixtureModel):
    """z_t = TaskTower_t(m_t), m of `ProgressiveExtraction`: own and shared experts in L levels.

    See `MixtureModel`.

    Args:
        layout: Columns of the encoded batch.
        network: User and item tower, and whether there is a shared logit; its block is not read.
        embeddings: Tables.
        extraction: Levels, experts, gates and task towers.
        seed: Seed of all initial weights.

    Raises:
        UserError: There are fewer than two tasks.

    Source: Tang et al., Progressive Layered Extraction (PLE): A Novel Multi-Task Learning Model
    for Personalized Recommendations (RecSys 2020).
    """

    Config = PLEConfig
    least_tasks = 2

    def __init__(
        self,
        layout: FeatureLayout,
        network: NetworkConfig = NetworkConfig(),  # noqa: B008 - frozen
        embeddings: EmbeddingsConfig = EmbeddingsConfig(),  # noqa: B008 - frozen
        extraction: PLEConfig = PLEConfig(),  # noqa: B008 - frozen
        *,
        seed: int = 0,
    ) -> None:
        experts = ProgressiveExtraction(
            extraction.levels,
            len(layout.tasks),
            extraction.task_experts,
            extraction.shared_experts,
            extraction.expert_units,
            gate_units=extraction.gate_units,
            gate_bias=extraction.gate_bias,
            seed=seed,
        )
        super().__init__(
            layout,
            network,
            embeddings,
            extraction,
            experts,
            extraction.task_units,
            seed=seed,
            name="ple",
        )
