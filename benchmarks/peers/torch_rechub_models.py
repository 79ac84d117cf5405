"""torch-rechub's multi-task models as a `TaskNetwork` says."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch_rechub.basic.features import DenseFeature, SparseFeature
from torch_rechub.models.multi_task import AITM, ESMM, MMOE, PLE, SharedBottom

from benchmarks.peers.task_network import TaskNetwork


def model_of(network: TaskNetwork) -> nn.Module:
    """The library's own model; the first row of each of its tables stands for a missing id."""
    fields = {
        name: SparseFeature(name, rows + 1, embed_dim=network.dim)
        for name, _, rows in network.fields
    }
    features = [*fields.values(), *(DenseFeature(name) for name, _ in network.numbers)]
    kinds = ["classification"] * network.tasks
    layers: dict[str, Any] = {"dims": list(network.units)}
    towers: list[dict[str, Any]] = [{"dims": list(network.tower)}] * network.tasks
    if network.model == "shared_bottom":
        return SharedBottom(features, kinds, layers, towers)
    if network.model == "mmoe":
        return MMOE(features, kinds, network.experts, layers, towers)
    if network.model == "ple":
        sizes = network.levels, network.own, network.shared
        return PLE(features, kinds, *sizes, layers, towers)
    if network.model == "aitm":
        return AITM(features, network.tasks, layers, towers)
    users = [fields[name] for name, owner, _ in network.fields if owner == "user"]
    items = [fields[name] for name, owner, _ in network.fields if owner == "item"]
    whole = {"dims": [*network.units, *network.tower]}
    return ESMM(users, items, whole, whole)


def inputs_of(
    network: TaskNetwork, ids: np.ndarray, numbers: np.ndarray
) -> dict[str, torch.Tensor]:
    """The library's batch of ids (B, F) and numbers (B, N)."""
    columns = torch.from_numpy(ids + 1).t().contiguous()  # (F, B)
    batch = {field[0]: column for field, column in zip(network.fields, columns, strict=True)}
    for k, (name, _) in enumerate(network.numbers):
        batch[name] = torch.from_numpy(np.ascontiguousarray(numbers[:, k]))
    return batch


def towers_of(network: TaskNetwork, model: Any) -> list[nn.Module]:
    """The modules that give each task's logit (B, 1)."""
    return [model.tower_ctr, model.tower_cvr] if network.model == "esmm" else list(model.towers)
