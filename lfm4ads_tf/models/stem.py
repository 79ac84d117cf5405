"""STEM-Net: embeddings of every task's own beside shared ones, as an upstream."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, Any, Literal

import tensorflow as tf
from pydantic import Field

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.interactions.set_extraction import GateInput, Others, SetExtraction
from lfm4ads_tf.interactions.tower_bank import TowerBank
from lfm4ads_tf.models.config import NetworkConfig, Units
from lfm4ads_tf.models.set_model import SetModel
from lfm4ads_tf.models.set_tower import side_by_side
from lfm4ads_tf.models.upstream_config import UpstreamConfig
from lfm4ads_tf.strict import StrictModel

_OWN = "mix"
"""The activation of a row's own scenario."""


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
        axis: What has a set, experts and a gate of its own: each `task`, or each `scenario`, of
            which then all tasks' towers read the mixture.
        groups: Tasks, or scenarios, that share a set, group by group; one that is in none has its
            own.
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
    axis: Literal["task", "scenario"] = "task"
    groups: list[list[str]] = []
    task_units: Units = [64]


class STEM(SetModel):
    """z_t = TaskTower_t(m_t), m of `SetExtraction`: every gate sees all experts, and cuts others'.

    Set t belongs to task t, the last one is shared. The outputs of other tasks' experts are mixed
    without their gradient: a task's loss reaches its own and the shared embeddings alone. With
    `axis: scenario` scenarios stand in the place of tasks:

        z_{s,t} = [w_t Tower_t(m_S) + c_t] + w_{s,t} Tower_{s,t}(m_s) + c_{s,t}

    m_S is the mixture of a shared gate; a row of an unknown scenario has the first part alone. See
    `SetModel`.

    Args:
        layout: Columns of the encoded batch.
        network: Towers of each set, and whether there is a shared logit; its block is not read.
        embeddings: Tables, of one set more than there are tasks or groups of them.
        extraction: Experts, gates, groups and task towers.
        seed: Seed of all initial weights.

    Raises:
        UserError: There are fewer than two tasks (scenarios), the tables have another number of
            sets, or a group names an unknown one or one twice.

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
        by_scenario = self._by_scenario
        owners = layout.scenarios if by_scenario else layout.tasks
        reads = sets_of_owners(extraction.groups, owners)
        if by_scenario:
            embeddings = _sets_of_scenarios(extraction, embeddings, owners)
        experts = SetExtraction(
            extraction.levels,
            reads,
            extraction.task_experts,
            extraction.shared_experts,
            extraction.expert_units,
            others=_others(extraction),
            gate_input=extraction.gate_input,
            strict=extraction.strict and not extraction.all_backward,
            shared_output=by_scenario,
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
        """See `SetModel`; how many there are for scenarios is known when these are."""
        if options.axis == "scenario":
            return 0, "each scenario, and one that all share"
        of_tasks = max(sets_of_owners(options.groups, tasks)) + 1
        kind = "each task or group of tasks" if options.groups else "each task"
        return of_tasks + 1, f"{kind}, and one that all share"

    @classmethod
    def default_sets(cls, config: UpstreamConfig, tasks: Sequence[str]) -> int:
        """See `SetModel`; for scenarios 1, which stands for as many as they need."""
        return super().default_sets(config, tasks) or 1

    @classmethod
    def tables(cls, config: UpstreamConfig, layout: FeatureLayout) -> EmbeddingsConfig:
        """See `UpstreamModel`; with scenarios of as many sets as these need."""
        if config.options.axis == "task":
            return super().tables(config, layout)
        return _sets_of_scenarios(config.options, config.embeddings, layout.scenarios)

    @classmethod
    def levels(cls, config: UpstreamConfig, tasks: Sequence[str]) -> dict[str, str]:
        """The tables alone."""
        return {"embeddings": "embeddings"}

    @classmethod
    def check_scenarios(cls, config: UpstreamConfig, *, given: bool) -> None:
        """See `UpstreamModel`; `axis: scenario` needs them."""
        if config.options.axis == "scenario" and not given:
            raise UserError(
                "upstream.stem.axis: scenario needs a feature spec with scenarios.",
                received="the spec has no keys.scenario",
                fix="name the scenario's column under keys.scenario, or set "
                "upstream.stem.axis=task",
            )

    @classmethod
    def refuse(cls, options: Any, embeddings: EmbeddingsConfig, tasks: Sequence[str]) -> None:
        """See `SetModel`; a group names tasks, each once."""
        if options.axis == "task":
            check_groups(options.groups, tasks, "task")
            super().refuse(options, embeddings, tasks)

    @classmethod
    def activation_names(cls, config: UpstreamConfig, tasks: Sequence[str]) -> list[str]:
        """See `MixtureModel`; with scenarios `towers` and `mix`, that of the row's scenario."""
        if config.options.axis == "scenario":
            return ["towers", _OWN]
        return super().activation_names(config, tasks)

    @classmethod
    def handed_over(
        cls, config: UpstreamConfig, tasks: Sequence[str], stored: Collection[str]
    ) -> list[str]:
        """See `MixtureModel`."""
        if config.options.axis == "scenario":
            return [_OWN if _OWN in stored else "towers"]
        return super().handed_over(config, tasks, stored)

    @property
    def _by_scenario(self) -> bool:
        options: STEMConfig = self.arguments["extraction"]
        return options.axis == "scenario"

    @property
    def layer_names(self) -> list[str]:
        """Names of the activations, in order; each can be a CR's layer."""
        return ["towers", _OWN] if self._by_scenario else super().layer_names

    def made_heads(self, units: Sequence[int], *, shared: bool, seed: int) -> TowerBank:
        """See `MixtureModel`; with scenarios a tower for each of them and each task."""
        if not self._by_scenario:
            return super().made_heads(units, shared=shared, seed=seed)
        sizes = len(self.layout.scenarios), len(self.layout.tasks)
        return TowerBank(
            units, *sizes, per="both", shared=shared, seed=seed, name="scenario_towers"
        )

    def mixtures(self, stream: tf.Tensor | list[tf.Tensor], training: bool = False) -> tf.Tensor:
        """See `MixtureModel`; with scenarios (B, S + 1, h), the shared one last."""
        if not self._by_scenario:
            return super().mixtures(stream, training)
        return self.experts(stream, training=training)

    def tower_logits(self, mixed: tf.Tensor, scenario: tf.Tensor) -> tf.Tensor:
        """See `MixtureModel`."""
        if not self._by_scenario:
            return super().tower_logits(mixed, scenario)
        first = [mixed.shape[1] - 1] if self.heads.shared else []  # what tower 0 reads
        order = [*first, *range(mixed.shape[1] - 1)]
        read = tf.repeat(tf.gather(mixed, order, axis=1), len(self.layout.tasks), axis=1)
        return self.heads(read, scenario)  # of (B, C T, h)

    def represent(self, batch: EncodedBatch) -> dict[str, tf.Tensor]:
        """See `MixtureModel`; with scenarios `mix` is m_s of the row's own, or m_S."""
        if not self._by_scenario:
            return super().represent(batch)
        user, item, stream = self._read(batch)
        mixed = self.mixtures(stream)  # (B, S + 1, h)
        last = mixed.shape[1] - 1
        place = tf.where(batch["scenario"] < 0, tf.cast(last, tf.int64), batch["scenario"])
        own = tf.gather(mixed, place, axis=1, batch_dims=1)  # (B, h)
        return {"UR": user, "IR": item, "towers": side_by_side(stream), _OWN: own}


def sets_of_owners(groups: Sequence[Sequence[str]], owners: Sequence[str]) -> list[int]:
    """The set that each task or scenario reads, counted in the order of the first one of each.

    Args:
        groups: Those that share a set, group by group.
        owners: All of them.
    """
    group_of = {owner: tuple(group) for group in groups for owner in group}
    keys = [group_of.get(owner, (owner,)) for owner in owners]
    distinct = list(dict.fromkeys(keys))
    return [distinct.index(key) for key in keys]


def _sets_of_scenarios(
    options: STEMConfig, embeddings: EmbeddingsConfig, scenarios: Sequence[str]
) -> EmbeddingsConfig:
    """The tables with a set for each scenario or group of them, and one.

    Raises:
        UserError: There are fewer than two, a group is none, or another number was given.
    """
    if len(scenarios) < 2:
        raise UserError(
            "upstream.stem.axis: scenario needs two scenarios or more.",
            received=f"scenarios: {', '.join(scenarios) or 'none'}",
            fix="set upstream.stem.axis=task",
        )
    check_groups(options.groups, scenarios, "scenario")
    sets = max(sets_of_owners(options.groups, scenarios)) + 2
    if embeddings.sets not in (1, sets):
        raise UserError(
            "STEM with axis: scenario has a set of embeddings for each scenario or group of "
            "scenarios, and one that all share.",
            received=f"upstream.embeddings.sets: {embeddings.sets}; {len(scenarios)} scenarios",
            fix=f"leave upstream.embeddings.sets out, or set it to {sets}",
        )
    return embeddings.model_copy(update={"sets": sets})


def _others(options: STEMConfig) -> Others:
    """What a task's gate does with other tasks' experts."""
    if not options.see_others:
        return "hidden"
    return "open" if options.all_backward else "cut"


def check_groups(groups: Sequence[Sequence[str]], owners: Sequence[str], kind: str) -> None:
    """Refuses groups of unknown tasks or scenarios, and one in two places.

    Raises:
        UserError: There is such a group.
    """
    named = [owner for group in groups for owner in group]
    for owner in named:
        received = f"groups: {[list(group) for group in groups]}; {kind}s: {', '.join(owners)}"
        if owner not in owners:
            raise UserError(
                f"upstream.stem.groups names the unknown {kind} '{owner}'."
                + nearest(owner, owners),
                received=received,
                fix=f"name {kind}s of the log, each once",
            )
        if named.count(owner) > 1:
            raise UserError(
                f"upstream.stem.groups names the {kind} '{owner}' more than once.",
                received=received,
                fix=f"name each {kind} in one group; one that is in none has a set of its own",
            )
