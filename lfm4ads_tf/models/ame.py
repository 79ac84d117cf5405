"""Embeddings of several widths, chosen by every task's gate, as an upstream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import tensorflow as tf
from pydantic import Field

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.interactions.group_mixture import GroupMixture
from lfm4ads_tf.models.config import NetworkConfig, Units
from lfm4ads_tf.models.set_model import SetModel
from lfm4ads_tf.strict import StrictModel


class AMEConfig(StrictModel):
    """Asymmetric multi-embedding.

    Attributes:
        set_groups: Sets of each group; a group of m sets of width D is one embedding of width m D.
        expert_units: Width of each layer of a group's expert; the last one is common.
        gate_units: Hidden units of each task's gate; empty means a softmax of W_t x.
        gate_bias: Whether a gate's scores have a bias.
        task_units: Hidden units of each task's tower; empty means logits of the mixture itself.
    """

    set_groups: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2)] = [1, 2, 4]
    expert_units: Annotated[Units, Field(min_length=1)] = [256, 128]
    gate_units: Units = []
    gate_bias: bool = False
    task_units: Units = [64]


class AME(SetModel):
    """z_t = TaskTower_t(m_t), m of `GroupMixture`: one expert for each width of embeddings.

    A group of m sets of width D is looked up as one embedding of width m D, with towers of its own;
    all groups are one look-up. No task owns a group: every task's gate mixes all of them. See
    `SetModel`.

    Args:
        layout: Columns of the encoded batch.
        network: Towers of each group, and whether there is a shared logit; its block is not read.
        embeddings: Tables, of as many sets as the groups have together.
        mixture: Groups, experts, gates and task towers.
        seed: Seed of all initial weights.

    Raises:
        UserError: The tables have another number of sets.

    Source: Pan et al., Ads Recommendation in a Collapsed and Entangled World (KDD 2024), section on
    interest entanglement; known at second hand.
    """

    Config = AMEConfig

    def __init__(
        self,
        layout: FeatureLayout,
        network: NetworkConfig = NetworkConfig(),  # noqa: B008 - frozen
        embeddings: EmbeddingsConfig = EmbeddingsConfig(),  # noqa: B008 - frozen
        mixture: AMEConfig = AMEConfig(),  # noqa: B008 - frozen
        *,
        seed: int = 0,
    ) -> None:
        experts = GroupMixture(
            len(mixture.set_groups),
            mixture.expert_units,
            len(layout.tasks),
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
            set_groups=mixture.set_groups,
            seed=seed,
            name="ame",
        )
        self._sizes = tuple(mixture.set_groups)
        self._dim = embeddings.dim

    def observed(self, batch: EncodedBatch) -> Mapping[str, tf.Tensor]:
        """The weight of each group in each task's gate, (B,), by the group's width m D."""
        _, _, groups = self._read(batch)
        weights = self.experts.weights_of(groups)  # (B, T, G)
        widths = [m * self._dim for m in self._sizes]
        return {
            f"gate/{task}/group_{g}_width_{width}": weights[:, t, g]
            for t, task in enumerate(self.layout.tasks)
            for g, width in enumerate(widths)
        }

    @classmethod
    def sets(cls, options: Any, tasks: Sequence[str]) -> tuple[int, str]:
        """See `SetModel`."""
        return sum(options.set_groups), f"each member of its groups {options.set_groups}"
