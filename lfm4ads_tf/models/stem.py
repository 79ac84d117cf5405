"""STEM-Net: embeddings of every task's own beside shared ones, as an upstream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.scenario_checks import refuse_mixtures
from lfm4ads_tf.models.sdem import SDEM
from lfm4ads_tf.models.set_model import SetModel
from lfm4ads_tf.models.stem_config import STEMConfig, check_groups, sets_of_owners
from lfm4ads_tf.models.upstream import UpstreamModel


class STEM(SetModel):
    """z_t = TaskTower_t(m_t), m of `SetExtraction`: every gate sees all experts, and cuts others'.

    Set t belongs to task t, the last one is shared. The outputs of other tasks' experts are mixed
    without their gradient: a task's loss reaches its own and the shared embeddings alone. With
    `axis: scenario` it is `SDEM`. See `SetModel`.

    Args:
        layout: Columns of the encoded batch.
        network: Towers of each set, and whether there is a shared logit; its block is not read.
        embeddings: Tables, of one set more than there are tasks or groups of them.
        extraction: Experts, gates, groups and task towers.
        seed: Seed of all initial weights.

    Raises:
        UserError: There are fewer than two tasks, the tables have another number of sets, a group
            names an unknown task or one twice, or the axis is not the tasks.

    Source: Su et al., STEM: Unleashing the Power of Embeddings for Multi-task Recommendation (AAAI
    2024). Levels above the first are cut on the shared path too, unless `strict` is false, as in
    the released code.
    """

    Config = STEMConfig
    least_tasks = 2

    def __init__(
        self,
        layout: FeatureLayout,
        network: NetworkConfig = NetworkConfig(),  # noqa: B008 - frozen
        embeddings: EmbeddingsConfig = EmbeddingsConfig(),  # noqa: B008 - frozen
        extraction: STEMConfig = STEMConfig(),  # noqa: B008 - frozen
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(
            layout,
            network,
            embeddings,
            extraction,
            extraction.extraction(layout.tasks, shared=False, seed=seed),
            extraction.task_units,
            seed=seed,
            name="stem",
        )

    @classmethod
    def of(cls, options: Any) -> type[UpstreamModel]:
        """`SDEM` where the axis is the scenarios."""
        return SDEM if options is not None and options.axis == "scenario" else cls

    @classmethod
    def sets(cls, options: Any, tasks: Sequence[str]) -> tuple[int, str]:
        """See `SetModel`."""
        of_tasks = max(sets_of_owners(options.groups, tasks)) + 1
        kind = "each task or group of tasks" if options.groups else "each task"
        return of_tasks + 1, f"{kind}, and one that all share"

    @classmethod
    def refuse(cls, options: Any, embeddings: EmbeddingsConfig, tasks: Sequence[str]) -> None:
        """See `SetModel`; a group names tasks, each once."""
        if options.axis != "task":
            raise UserError(
                "STEM has the tasks as its axis.",
                received=f"axis: {options.axis}",
                fix="build SDEM for scenarios",
            )
        refuse_mixtures(options.mixtures_of, instead="upstream.stem.axis=scenario")
        check_groups(options.groups, tasks, "task")
        super().refuse(options, embeddings, tasks)
