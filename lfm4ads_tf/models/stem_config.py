"""Options of STEM-Net over tasks or scenarios, and what both make of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.interactions.set_extraction import GateInput, Others, SetExtraction
from lfm4ads_tf.models.config import Units
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
        axis: What has a set, experts and a gate of its own: each `task`, or each `scenario`, of
            which then all tasks' towers read the mixture.
        groups: Tasks, or scenarios, that share a set, group by group; one that is in none has its
            own.
        mixtures_of: With `axis: scenario`, scenarios whose mixture is a layer of its own,
            `mix_<scenario>`, of every row.
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
    mixtures_of: list[str] = []
    task_units: Units = [64]

    @property
    def others(self) -> Others:
        """What an owner's gate does with others' experts."""
        if not self.see_others:
            return "hidden"
        return "open" if self.all_backward else "cut"

    def extraction(self, owners: Sequence[str], *, shared: bool, seed: int) -> SetExtraction:
        """The experts and gates.

        Args:
            owners: The tasks or scenarios.
            shared: Whether there is a shared mixture behind theirs.
            seed: Seed of the initial weights.
        """
        return SetExtraction(
            self.levels,
            sets_of_owners(self.groups, owners),
            self.task_experts,
            self.shared_experts,
            self.expert_units,
            others=self.others,
            gate_input=self.gate_input,
            strict=self.strict and not self.all_backward,
            shared_output=shared,
            gate_units=self.gate_units,
            gate_bias=self.gate_bias,
            seed=seed,
        )


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
