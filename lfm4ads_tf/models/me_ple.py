"""Progressive layered extraction over embeddings of every task's own, as an upstream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.interactions.set_extraction import SetExtraction
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.ple import PLEConfig
from lfm4ads_tf.models.set_model import SetModel


class MEPLEConfig(PLEConfig):
    """Progressive layered extraction over several sets of embeddings; the keys are those of PLE."""


class MEPLE(SetModel):
    """z_t = TaskTower_t(m_t), m of `SetExtraction`: a set for each task, the last one shared.

    Task t's experts and gate read set t, the shared experts the last one; a gate does not see other
    tasks' experts. See `SetModel`.

    Args:
        layout: Columns of the encoded batch.
        network: Towers of each set, and whether there is a shared logit; its block is not read.
        embeddings: Tables, of one set more than there are tasks.
        extraction: Levels, experts, gates and task towers.
        seed: Seed of all initial weights.

    Raises:
        UserError: There are fewer than two tasks, or the tables have another number of sets.

    Source: named, without its equations, as a baseline of Su et al., STEM (AAAI 2024); Tang et al.
    (RecSys 2020) for the levels.
    """

    Config = MEPLEConfig
    least_tasks = 2

    def __init__(
        self,
        layout: FeatureLayout,
        network: NetworkConfig = NetworkConfig(),  # noqa: B008 - frozen
        embeddings: EmbeddingsConfig = EmbeddingsConfig(),  # noqa: B008 - frozen
        extraction: MEPLEConfig = MEPLEConfig(),  # noqa: B008 - frozen
        *,
        seed: int = 0,
    ) -> None:
        experts = SetExtraction(
            extraction.levels,
            range(len(layout.tasks)),
            extraction.task_experts,
            extraction.shared_experts,
            extraction.expert_units,
            others="hidden",
            gate_input="task",
            strict=False,
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
            name="me_ple",
        )

    @classmethod
    def sets(cls, options: Any, tasks: Sequence[str]) -> tuple[int, str]:
        """See `SetModel`."""
        return len(tasks) + 1, "each task, and one that all share"
