"""The mixture of experts that each read embeddings of their own, as an upstream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.interactions.set_mixture import GateRead, SetMixture
from lfm4ads_tf.models.config import NetworkConfig, Units
from lfm4ads_tf.models.set_model import SetModel
from lfm4ads_tf.strict import StrictModel


class MEMMoEConfig(StrictModel):
    """Multi-gate mixture of experts over several sets of embeddings.

    Attributes:
        experts: Experts E, and sets of embeddings.
        expert_units: Width of each layer of an expert.
        gate_input: What every gate reads: the `mean` over the sets, or all of them `joined`.
        gate_units: Hidden units of each gate; empty means a softmax of W_t v.
        gate_bias: Whether a gate's scores have a bias.
        task_units: Hidden units of each task's tower; empty means logits of the mixture itself.
    """

    experts: int = Field(default=4, ge=2)
    expert_units: Annotated[Units, Field(min_length=1)] = [256, 128]
    gate_input: GateRead = "mean"
    gate_units: Units = []
    gate_bias: bool = False
    task_units: Units = [64]


class MEMMoE(SetModel):
    """z_t = TaskTower_t(m_t), m of `SetMixture`: expert e reads set e of the embeddings.

    See `SetModel`.

    Args:
        layout: Columns of the encoded batch.
        network: Towers of each set, and whether there is a shared logit; its block is not read.
        embeddings: Tables, of as many sets as there are experts.
        mixture: Experts, gates and task towers.
        seed: Seed of all initial weights.

    Raises:
        UserError: The tables have another number of sets.

    Source: named, without its equations, as a baseline of Su et al., STEM (AAAI 2024); Ma et al.
    (KDD 2018) for the gates.
    """

    Config = MEMMoEConfig

    def __init__(
        self,
        layout: FeatureLayout,
        network: NetworkConfig = NetworkConfig(),  # noqa: B008 - frozen
        embeddings: EmbeddingsConfig = EmbeddingsConfig(),  # noqa: B008 - frozen
        mixture: MEMMoEConfig = MEMMoEConfig(),  # noqa: B008 - frozen
        *,
        seed: int = 0,
    ) -> None:
        experts = SetMixture(
            mixture.experts,
            mixture.expert_units,
            len(layout.tasks),
            gate_input=mixture.gate_input,
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
            name="me_mmoe",
        )

    @classmethod
    def sets(cls, options: Any, tasks: Sequence[str]) -> tuple[int, str]:
        """See `SetModel`."""
        return options.experts, "each expert"
