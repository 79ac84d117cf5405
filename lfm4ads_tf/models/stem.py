"""STEM-Net: embeddings of every task's own beside shared ones, as an upstream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.interactions.set_extraction import GateInput, Others, SetExtraction
from lfm4ads_tf.models.config import NetworkConfig, Units
from lfm4ads_tf.models.set_model import SetModel
from lfm4ads_tf.strict import StrictModel


class STEMConfig(StrictModel):
    """STEM-Net.

    Attributes:
        levels: Levels of experts and gates.
        task_experts: Experts of each task in a level, K1.
        shared_experts: Shared experts of a level, K2.
        expert_units: Width of each layer of an expert.
        gate_input: What a task's gate reads: `sum`, x^t + x^S, or `task`, x^t alone.
        gate_units: Hidden units of each gate; empty means a softmax of W v.
        gate_bias: Whether a gate's scores have a bias.
        see_others: Whether a gate sees other tasks' experts; if not, it is `me_ple` but for what
            gates read.
        all_backward: Whether a task's loss reaches other tasks' experts and embeddings: without the
            cut that the model is about, for comparison.
        strict: Whether the shared gate below the last level cuts the tasks' own experts.
        groups: Tasks that share a set, group by group; a task that is in none has its own.
        task_units: Hidden units of each task's tower; empty means logits of the mixture itself.
    """

    levels: int = Field(default=1, ge=1)
    task_experts: int = Field(default=1, ge=1)
    shared_experts: int = Field(default=2, ge=1)
    expert_units: Annotated[Units, Field(min_length=1)] = [256, 128]
    gate_input: GateInput = "sum"
    gate_units: Units = []
    gate_bias: bool = False
    see_others: bool = True
    all_backward: bool = False
    strict: bool = True
    groups: list[list[str]] = []
    task_units: Units = [64]


class STEM(SetModel):
    """z_t = TaskTower_t(m_t), m of `SetExtraction`: every gate sees all experts, and cuts others'.

    Set t belongs to task t, the last one is shared. The outputs of other tasks' experts are mixed
    without their gradient: a task's loss reaches its own and the shared embeddings alone. See
    `SetModel`.

    Args:
        layout: Columns of the encoded batch.
        network: Towers of each set, and whether there is a shared logit; its block is not read.
        embeddings: Tables, of one set more than there are tasks or groups of them.
        extraction: Experts, gates, groups and task towers.
        seed: Seed of all initial weights.

    Raises:
        UserError: There are fewer than two tasks, the tables have another number of sets, or a
            group names an unknown task or one twice.

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
        _check_groups(extraction.groups, layout.tasks)
        experts = SetExtraction(
            extraction.levels,
            sets_of_tasks(extraction.groups, layout.tasks),
            extraction.task_experts,
            extraction.shared_experts,
            extraction.expert_units,
            others=_others(extraction),
            gate_input=extraction.gate_input,
            strict=extraction.strict and not extraction.all_backward,
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
            name="stem",
        )

    @classmethod
    def sets(cls, options: Any, tasks: Sequence[str]) -> tuple[int, str]:
        """See `SetModel`."""
        of_tasks = max(sets_of_tasks(options.groups, tasks)) + 1
        kind = "each task or group of tasks" if options.groups else "each task"
        return of_tasks + 1, f"{kind}, and one that all share"

    @classmethod
    def refuse(cls, options: Any, embeddings: EmbeddingsConfig, tasks: Sequence[str]) -> None:
        """See `SetModel`; a group names tasks, each once."""
        _check_groups(options.groups, tasks)
        super().refuse(options, embeddings, tasks)


def sets_of_tasks(groups: Sequence[Sequence[str]], tasks: Sequence[str]) -> list[int]:
    """The set that each task reads: sets are counted in the order of the first task of each.

    Args:
        groups: Tasks that share a set, group by group.
        tasks: All tasks.
    """
    group_of = {task: tuple(group) for group in groups for task in group}
    owners = [group_of.get(task, (task,)) for task in tasks]
    distinct = list(dict.fromkeys(owners))
    return [distinct.index(owner) for owner in owners]


def _others(options: STEMConfig) -> Others:
    """What a task's gate does with other tasks' experts."""
    if not options.see_others:
        return "hidden"
    return "open" if options.all_backward else "cut"


def _check_groups(groups: Sequence[Sequence[str]], tasks: Sequence[str]) -> None:
    """Refuses groups of unknown tasks, and a task in two places."""
    named = [task for group in groups for task in group]
    for task in named:
        received = f"groups: {[list(group) for group in groups]}; tasks: {', '.join(tasks)}"
        if task not in tasks:
            raise UserError(
                f"upstream.stem.groups names the unknown task '{task}'." + nearest(task, tasks),
                received=received,
                fix="name tasks of the feature spec, each once",
            )
        if named.count(task) > 1:
            raise UserError(
                f"upstream.stem.groups names the task '{task}' more than once.",
                received=received,
                fix="name each task in one group; one that is in none has a set of its own",
            )
