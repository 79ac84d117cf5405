"""torch-rechub's multi-task networks as our upstreams, and its weights in them.

Its layers are linear, batch norm, relu; ours have no batch norm. In evaluation mode a batch norm is
a factor and a summand for each column, which the linear layer before it can take:

    gamma (W x + b - mean) / s + beta = (gamma / s) W x + (gamma / s) (b - mean) + beta
    s = sqrt(var + eps)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.peers.task_network import TaskNetwork
from benchmarks.reference_network import EPSILON
from lfm4ads_tf.features.layout import DenseField, FeatureLayout, IdField, TableField

Dense = tuple[np.ndarray, np.ndarray]
"""Kernel (inputs, outputs) and bias (outputs,) of a layer."""
State = Mapping[str, np.ndarray]


def layout_of(network: TaskNetwork) -> FeatureLayout:
    """The network's inputs, with one scenario."""
    return FeatureLayout(
        fields=tuple(IdField(name, _owner(owner), table=name) for name, owner, _ in network.fields),
        dense=tuple(DenseField(name, _owner(owner)) for name, owner in network.numbers),
        tables=tuple(TableField(name, rows, network.dim) for name, _, rows in network.fields),
        scenarios=("all",),
        tasks=tuple(f"task_{t}" for t in range(network.tasks)),
    )


def upstream_of(network: TaskNetwork, tasks: Sequence[str]) -> dict[str, Any]:
    """The section `upstream` of a run configuration whose model is the network.

    Args:
        network: The network.
        tasks: Names of its tasks.
    """
    options: dict[str, Any] = {
        "expert_units": list(network.units),
        "task_units": list(network.tower),
    }
    if network.model == "mmoe":
        options |= {"experts": network.experts, "gate_bias": True}
    elif network.model == "ple":
        options |= {"levels": network.levels, "gate_bias": True}
        options |= {"task_experts": network.own, "shared_experts": network.shared}
    elif network.model == "esmm":
        options["funnel"] = list(tasks)
    return {
        "model": network.model,
        network.model: options,
        "network": {"user_tower": [], "item_tower": []},
        "embeddings": {"dim": network.dim},
    }


def folded(state: State, linear: str, norm: str | None = None) -> Dense:
    """A linear layer with the batch norm behind it.

    Args:
        state: State of the torch module.
        linear, norm: Names of the two in it; None where there is no batch norm.
    """
    weights, bias = state[f"{linear}.weight"], state[f"{linear}.bias"]  # (out, in), (out,)
    if norm is None:
        return weights.T, bias
    factor = state[f"{norm}.weight"] / np.sqrt(state[f"{norm}.running_var"] + EPSILON)
    shift = factor * (bias - state[f"{norm}.running_mean"]) + state[f"{norm}.bias"]
    return (factor[:, np.newaxis] * weights).T, shift


def chain(state: State, name: str) -> list[Dense]:
    """The layers of one of the library's MLPs, its linear output among them where it has one."""
    found: list[Dense] = []
    while f"{name}.mlp.{4 * len(found)}.weight" in state:
        linear, norm = (f"{name}.mlp.{4 * len(found) + k}" for k in (0, 1))
        found.append(folded(state, linear, norm if f"{norm}.weight" in state else None))
    return found


def load(model: Any, network: TaskNetwork, state: State) -> None:
    """Gives our model of the network the weights of torch-rechub's.

    Args:
        model: Our upstream of `upstream_of`, with its variables made.
        network: The network.
        state: State of the torch module.
    """
    for name, _, _ in network.fields:
        table = state[f"embedding.embed_dict.{name}.weight"]  # the missing id's row first
        stored = np.concatenate([table[1:], table[:1]])[:, np.newaxis]  # (rows + 1, 1, dim)
        model.backbone.embeddings.write_table(name, stored)
    # our x stands side by side: a side's embeddings, then its numbers
    places = {column: k for k, column in enumerate(network.columns)}
    order = [places[label] for label in model.backbone.stream_labels()]
    tasks = range(network.tasks)
    towers = [chain(state, f"towers.{t}") for t in tasks if network.model != "esmm"]
    experts = model.experts
    if network.model == "shared_bottom":
        _experts(experts, [chain(state, "bottom_mlp")], order)
    elif network.model == "mmoe":
        own = [chain(state, f"experts.{e}") for e in range(network.experts)]
        gates = [chain(state, f"gates.{t}")[0] for t in tasks]
        _experts(experts, own, order, gates)
    elif network.model == "ple":
        _levels(experts, network, state, order)
    elif network.model == "aitm":
        _experts(experts, [chain(state, f"bottoms.{t}") for t in tasks], order)
        for t, (kernel, bias, attention) in enumerate(model.transfer.steps):
            ((weights, shift),) = chain(state, f"info_gates.{t}")
            kernel.assign(weights)
            bias.assign(shift)
            maps = [state[f"aits.{t}.{name}_layer.weight"].T for name in "qkv"]
            attention.assign(np.concatenate(maps, axis=1))
    else:
        whole = [chain(state, "tower_ctr"), chain(state, "tower_cvr")]
        depth = len(network.units)
        _experts(experts, [layers[:depth] for layers in whole], order)
        towers = [layers[depth:] for layers in whole]
    _towers(model.heads, towers)


def _levels(
    extraction: Any, network: TaskNetwork, state: State, order: Sequence[int] | None
) -> None:
    """The levels of ple; experts are those of the tasks in order, then the shared ones."""
    banks = [extraction.first, *extraction.experts]
    for level, bank in enumerate(banks):
        name = f"cgc_layers.{level}"
        own = [f"{name}.experts_specific.{k}" for k in range(network.tasks * network.own)]
        shared = [f"{name}.experts_shared.{k}" for k in range(network.shared)]
        names = [f"{name}.gates_specific.{t}" for t in range(network.tasks)]
        if level < network.levels - 1:
            names.append(f"{name}.gate_shared")
        gates = [chain(state, gate)[0] for gate in names]
        experts = [chain(state, expert) for expert in own + shared]
        if level == 0:
            _experts(bank, experts, order, gates)
            continue
        _experts(bank, experts, None)
        of_level = extraction.gates[level - 1]
        most = of_level.kernel.shape[-1]  # a gate of fewer experts has columns that nothing reads
        pad = [(0, 0), (0, most)]
        of_level.kernel.assign([np.pad(kernel, pad)[:, :most] for kernel, _ in gates])
        of_level.bias.assign([[np.pad(bias, (0, most))[:most]] for _, bias in gates])


def _experts(
    bank: Any,
    experts: Sequence[Sequence[Dense]],
    order: Sequence[int] | None,
    gates: Sequence[Dense] = (),
) -> None:
    """An `ExpertBank`, or an `ExpertMixture` with its gates.

    Args:
        order: For each column of our x its place in theirs; None where each expert reads a set of
            its own, in which they are the same.
    """
    first = [layers[0] for layers in experts]
    if order is None:
        bank.kernel.assign([kernel for kernel, _ in first])
        bank.bias.assign([[bias] for _, bias in first])
    else:
        side_by_side = np.concatenate([kernel for kernel, _ in [*first, *gates]], axis=1)
        bank.kernel.assign(side_by_side[list(order)])
        bank.bias.assign(np.concatenate([bias for _, bias in first]))
    if gates:
        bank.gate_bias.assign(np.concatenate([bias for _, bias in gates]))
    for k, (kernel, bias) in enumerate(bank.deeper, start=1):
        kernel.assign([layers[k][0] for layers in experts])
        bias.assign([[layers[k][1]] for layers in experts])


def _towers(heads: Any, towers: Sequence[Sequence[Dense]]) -> None:
    """`TaskTowers`: the logit goes to the one that scenarios share, whose corrections are zero."""
    for k, (kernel, bias) in enumerate(heads.layers):
        kernel.assign([layers[k][0] for layers in towers])
        bias.assign([[layers[k][1]] for layers in towers])
    logits = [layers[-1] for layers in towers]  # (u, 1), (1,) each
    of_scenarios = [(0, 0), (0, heads.scenarios)]
    heads.logit_kernel.assign([np.pad(kernel, of_scenarios) for kernel, _ in logits])
    heads.logit_bias.assign([np.pad(bias[np.newaxis], of_scenarios) for _, bias in logits])


def _owner(name: str) -> Any:
    if name not in ("user", "item", "context"):
        raise ValueError(f"a feature is of user, item or context, not of {name}")
    return name
