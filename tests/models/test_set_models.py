"""Mixtures over sets of embeddings and over groups of them, against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.models.ame import AME, AMEConfig
from lfm4ads_tf.models.me_mmoe import MEMMoE, MEMMoEConfig
from tests.models.test_mixture_models import expert_layers, mlp, softmax
from tests.rounding import assert_close
from tests.small_models import LAYOUT, NETWORK, random_batch

pytestmark = pytest.mark.processor

Randomize = Callable[..., None]
SIZES: dict[str, Any] = {"expert_units": [8, 5], "task_units": [4]}


def tables(sets: int) -> EmbeddingsConfig:
    return EmbeddingsConfig(dim=4, init_scale=0.5, sets=sets)


def gates_of(bank: Any, read: np.ndarray) -> list[np.ndarray]:
    """Softmax of every gate over all experts; gates have no hidden units."""
    kernel = bank.kernel.numpy()
    columns = kernel.shape[-1] // bank.mix.gates
    return [softmax(read @ own) for own in np.split(kernel, kernel.shape[-1] // columns, axis=1)]


@pytest.mark.parametrize("gate_input", ["mean", "joined"])
def test_expert_e_reads_set_e_and_every_gate_the_same(
    gate_input: Any, randomize: Randomize
) -> None:
    options = MEMMoEConfig(experts=3, gate_input=gate_input, **SIZES)
    model, batch = MEMMoE(LAYOUT, NETWORK, tables(3), options, seed=1), random_batch()
    model(batch)
    randomize(model)
    found = model.represent(batch)
    x = [v.astype(np.float64) for v in np.split(found["towers"].numpy(), 3, axis=1)]
    layer = model.experts
    outputs = [mlp(x[e], expert_layers(layer.experts, e)) for e in range(3)]
    read = np.mean(x, axis=0) if gate_input == "mean" else np.concatenate(x, axis=1)
    for weights, task in zip(gates_of(layer.gates, read), LAYOUT.tasks, strict=True):
        expected = sum(weights[:, e, None] * outputs[e] for e in range(3))
        assert_close(found[f"mix_{task}"], expected, terms=60)


@pytest.mark.parametrize("sizes", [[1, 2], [1, 1]])
def test_a_group_of_sets_is_one_wide_embedding(sizes: list[int], randomize: Randomize) -> None:
    """Expert g reads its group's fields at the group's width, then the numbers, side by side."""
    network, sets = NETWORK.model_copy(update={"user_tower": [], "item_tower": []}), sum(sizes)
    options = AMEConfig(set_groups=sizes, **SIZES)
    model, batch = AME(LAYOUT, network, tables(sets), options, seed=1), random_batch()
    model(batch)
    randomize(model)
    found = model.represent(batch)
    embedded = model.backbone.embeddings(batch["ids"], batch["bags"])  # width -> (B, F, K, D)
    names = {dim: model.backbone.embeddings.fields(dim) for dim in model.backbone.embeddings.dims}
    sides: dict[str, list[np.ndarray]] = {}
    for owner in ("user", "item", "context"):
        numbers = batch["dense"].numpy()[:, LAYOUT.dense_columns(owner)]
        sides[owner] = []
        for of_group in (slice(0, 1), slice(1, sets)):
            parts = []
            for dim, fields in names.items():
                owners = {f.name: f.owner for f in LAYOUT.fields}
                values = tf.reshape(embedded[dim], [12, len(fields), sets, dim]).numpy()
                parts += [
                    values[:, k, of_group].reshape(12, -1)
                    for k, field in enumerate(fields)
                    if owners[field] == owner
                ]
            sides[owner].append(np.concatenate([*parts, numbers], axis=1))
    for name, owner in (("UR", "user"), ("IR", "item")):
        np.testing.assert_array_equal(found[name], np.concatenate(sides[owner], axis=1))
    x = [np.concatenate([sides[o][g] for o in sides], axis=1) for g in range(2)]
    np.testing.assert_array_equal(found["towers"], np.concatenate(x, axis=1))
    layer = model.experts
    outputs = [mlp(x[g], expert_layers(layer.experts[g], 0)) for g in range(2)]
    weights = gates_of(layer.gates, np.concatenate(x, axis=1).astype(np.float64))
    for own, task in zip(weights, LAYOUT.tasks, strict=True):
        expected = sum(own[:, g, None] * outputs[g] for g in range(2))
        assert_close(found[f"mix_{task}"], expected, terms=90)


@pytest.mark.parametrize("task", [0, 1])
@pytest.mark.parametrize("kind", ["ame", "me_mmoe"])
def test_every_tasks_loss_reaches_every_set(kind: str, task: int, randomize: Randomize) -> None:
    model: Any
    if kind == "ame":
        model = AME(LAYOUT, NETWORK, tables(3), AMEConfig(set_groups=[1, 2], **SIZES))
    else:
        model = MEMMoE(LAYOUT, NETWORK, tables(3), MEMMoEConfig(experts=3, **SIZES))
    batch = random_batch(40)
    model(batch)
    randomize(model)
    parts = model.backbone.embeddings.all_parts()
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(model(batch)[:, task])
    for gradient in tape.gradient(total, parts):
        dense = tf.convert_to_tensor(gradient).numpy()
        assert np.abs(dense.reshape(len(dense), 3, -1)).max(axis=(0, 2)).all()


def test_groups_are_checked() -> None:
    for groups in ([1, 0, 2], [3]):
        with pytest.raises(ValueError, match="set_groups"):
            AMEConfig(set_groups=groups)


def test_the_weights_of_the_gates_are_observed(randomize: Randomize) -> None:
    model = AME(LAYOUT, NETWORK, tables(3), AMEConfig(set_groups=[1, 2], **SIZES))
    batch = random_batch()
    model(batch)
    randomize(model)
    found = model.observed(batch)
    names = [f"gate/{t}/group_{g}_width_{w}" for t in LAYOUT.tasks for g, w in ((0, 4), (1, 8))]
    assert list(found) == names
    x = model.represent(batch)["towers"].numpy().astype(np.float64)
    for t, weights in enumerate(gates_of(model.experts.gates, x)):
        for g in range(2):
            assert_close(found[names[2 * t + g]], weights[:, g], terms=60)
