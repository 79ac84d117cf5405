"""STEM-Net with auxiliary tasks that help the main ones and are not served."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, Any

from pydantic import Field

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.interactions.set_extraction import SetExtraction
from lfm4ads_tf.models.config import NetworkConfig, Units
from lfm4ads_tf.models.set_model import SetModel
from lfm4ads_tf.models.upstream_config import UpstreamConfig
from lfm4ads_tf.strict import StrictModel


class STEMALConfig(StrictModel):
    """STEM-Net for auxiliary learning.

    Attributes:
        auxiliary: Tasks that help the others and are trained, but not exported.
        levels: Levels of experts and gates.
        task_experts: Experts of each task in a level.
        expert_units: Width of each layer of an expert.
        gate_units: Hidden units of each gate; empty means a softmax of W x.
        gate_bias: Whether a gate's scores have a bias.
        all_backward: Whether a main task's loss reaches other tasks' experts and embeddings:
            without the cut that the model is about, for comparison.
        task_units: Hidden units of each task's tower; empty means logits of the mixture itself.
    """

    auxiliary: list[str] = []
    levels: int = Field(default=1, ge=1)
    task_experts: int = Field(default=1, ge=1)
    expert_units: Annotated[Units, Field(min_length=1)] = [256, 128]
    gate_units: Units = []
    gate_bias: bool = False
    all_backward: bool = False
    task_units: Units = [64]


class STEMAL(SetModel):
    """z_t = TaskTower_t(m_t): a main task's gate mixes all experts, an auxiliary one's its own.

    Set t belongs to task t and none is shared. Experts, gates and mixtures are those of
    `SetExtraction`, whose gates read x^t; a main task cuts the experts of all others. An export
    answers the main tasks alone. See `SetModel`.

    Args:
        layout: Columns of the encoded batch.
        network: Towers of each set, and whether there is a shared logit; its block is not read.
        embeddings: Tables, of as many sets as there are tasks.
        extraction: The auxiliary tasks, experts, gates and task towers.
        seed: Seed of all initial weights.

    Raises:
        UserError: No task or every task is auxiliary, an auxiliary one is unknown or named twice,
            or the tables have another number of sets.

    Source: Pan et al., Ads Recommendation in a Collapsed and Entangled World (KDD 2024), section on
    auxiliary learning, and Su et al., STEM (AAAI 2024), for the cut; known at second hand.
    """

    Config = STEMALConfig
    least_tasks = 2

    def __init__(
        self,
        layout: FeatureLayout,
        network: NetworkConfig = NetworkConfig(),  # noqa: B008 - frozen
        embeddings: EmbeddingsConfig = EmbeddingsConfig(),  # noqa: B008 - frozen
        extraction: STEMALConfig = STEMALConfig(),  # noqa: B008 - frozen
        *,
        seed: int = 0,
    ) -> None:
        tasks = layout.tasks
        experts = SetExtraction(
            extraction.levels,
            range(len(tasks)),
            extraction.task_experts,
            0,
            extraction.expert_units,
            others="open" if extraction.all_backward else "cut",
            alone=[t for t, task in enumerate(tasks) if task in extraction.auxiliary],
            gate_input="task",
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
            name="stem_al",
        )
        self._auxiliary = tuple(extraction.auxiliary)

    @property
    def served_tasks(self) -> list[str]:
        """The main tasks."""
        return [task for task in self.layout.tasks if task not in self._auxiliary]

    @classmethod
    def sets(cls, options: Any, tasks: Sequence[str]) -> tuple[int, str]:
        """See `SetModel`."""
        return len(tasks), "each task"

    @classmethod
    def handed_over(
        cls, config: UpstreamConfig, tasks: Sequence[str], stored: Collection[str]
    ) -> list[str]:
        """The stored mixtures of main tasks, else what `MixtureModel` hands over."""
        every = super().handed_over(config, tasks, stored)
        auxiliary = {f"mix_{task}" for task in config.options.auxiliary}
        return [name for name in every if name not in auxiliary] or every

    @classmethod
    def refuse(cls, options: Any, embeddings: EmbeddingsConfig, tasks: Sequence[str]) -> None:
        """See `SetModel`; some tasks are auxiliary, and some are not."""
        super().refuse(options, embeddings, tasks)
        received = f"auxiliary: {options.auxiliary}; tasks: {', '.join(tasks)}"
        for task in options.auxiliary:
            if task not in tasks or options.auxiliary.count(task) > 1:
                twice = task in tasks
                raise UserError(
                    f"upstream.stem_al.auxiliary names the task '{task}' more than once."
                    if twice
                    else f"upstream.stem_al.auxiliary names the unknown task '{task}'."
                    + nearest(task, tasks),
                    received=received,
                    fix="name tasks of the feature spec, each once",
                )
        if not 0 < len(options.auxiliary) < len(tasks):
            raise UserError(
                "STEMAL needs a task that is auxiliary and one that is not.",
                received=received,
                fix="name the tasks that only help under upstream.stem_al.auxiliary, or take the "
                "upstream stem, which serves all",
            )
