"""What each task's loss reaches in STEM-Net, and what stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.models.me_ple import MEPLE, MEPLEConfig
from lfm4ads_tf.models.stem import STEM
from lfm4ads_tf.models.stem_config import STEMConfig, sets_of_owners
from lfm4ads_tf.optim.hybrid_optimizer import HybridOptimizer
from lfm4ads_tf.optim.rules.adagrad import Adagrad
from lfm4ads_tf.optim.rules.adam import LazyAdam
from lfm4ads_tf.optim.rules.rule import RowRule
from tests.small_models import LAYOUT, NETWORK, random_batch

pytestmark = pytest.mark.processor

TASKS = ("click", "buy", "like")
T, D = len(TASKS), 4
THREE = replace(LAYOUT, tasks=TASKS)
Randomize = Callable[..., None]


def batch_of(rows: int = 40) -> dict[str, Any]:
    labels = np.random.default_rng(4).integers(0, 2, (rows, T))
    return {**random_batch(rows), "labels": tf.constant(labels, tf.float32)}


def made(randomize: Randomize, sets: int = T + 1, **options: Any) -> STEM:
    sizes: dict[str, Any] = {"expert_units": [8, 5], "task_units": [4], "task_experts": 2}
    tables = EmbeddingsConfig(dim=D, init_scale=0.5, sets=sets)
    model = STEM(THREE, NETWORK, tables, STEMConfig(**{**sizes, **options}), seed=1)
    model(batch_of())
    randomize(model)
    return model


def reached(model: STEM, task: int) -> dict[str, list[bool]]:
    """Which sets, experts, gates and towers a task's loss has a gradient of."""
    layer, heads, tables = model.experts, model.heads, model.backbone.embeddings
    parts = tables.all_parts()
    kernels = [layer.experts[0].kernel, layer.gates[0].kernel, heads.logit_kernel]
    towers = model.backbone.user_tower.layers[0][0]
    batch = batch_of()
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(
            tf.nn.sigmoid_cross_entropy_with_logits(batch["labels"][:, task], model(batch)[:, task])
        )
    of_kernels = tape.gradient(loss, [*kernels, towers, *parts])
    dense = [tf.convert_to_tensor(g).numpy() for g in of_kernels]
    sets = np.zeros(tables.sets, bool)
    for gradient in dense[4:]:
        sets |= np.abs(gradient.reshape(len(gradient), tables.sets, -1)).max(axis=(0, 2)) > 0
    names = ("experts", "gates", "task_towers", "set_towers")
    found = {n: [bool(np.any(g)) for g in d] for n, d in zip(names, dense[:4], strict=True)}
    return {**found, "sets": [bool(s) for s in sets]}


@pytest.mark.parametrize("task", range(T))
@pytest.mark.parametrize("gate_input", ["sum", "task"])
def test_a_tasks_loss_reaches_its_own_and_the_shared_part_alone(
    task: int, gate_input: str, randomize: Randomize
) -> None:
    found = reached(made(randomize, gate_input=gate_input), task)
    own = [t == task for t in range(T)]
    assert found["sets"] == found["set_towers"] == [*own, True]
    assert found["experts"] == [t for t in own for _ in range(2)] + [True, True]
    assert found["gates"] == found["task_towers"] == own


@pytest.mark.parametrize("task", range(T))
def test_without_the_cut_a_loss_reaches_all_embeddings_and_experts(
    task: int, randomize: Randomize
) -> None:
    found = reached(made(randomize, all_backward=True), task)
    own = [t == task for t in range(T)]
    assert all(found["sets"]) and all(found["experts"])
    assert found["gates"] == found["task_towers"] == own


def test_tasks_of_a_group_share_a_set(randomize: Randomize) -> None:
    assert sets_of_owners([], TASKS) == [0, 1, 2]
    assert sets_of_owners([["like", "click"]], TASKS) == [0, 1, 0]
    assert sets_of_owners([["like", "buy"]], TASKS) == [0, 1, 1]
    model = made(randomize, sets=3, groups=[["like", "click"]])
    assert reached(model, 0)["sets"] == reached(model, 2)["sets"] == [True, False, True]
    assert reached(model, 1)["sets"] == [False, True, True]
    assert reached(model, 2)["experts"] == [False] * 4 + [True] * 4


@pytest.mark.parametrize("strict", [True, False])
def test_levels_are_cut_on_the_shared_path_too(strict: bool, randomize: Randomize) -> None:
    model = made(randomize, levels=2, strict=strict)
    assert reached(model, 1)["sets"] == [not strict, True, not strict, True]


@pytest.mark.parametrize(
    "rule", [Adagrad(), Adagrad(row_wise=True), LazyAdam()], ids=["elements", "rows", "adam"]
)
def test_a_step_leaves_other_tasks_rows_and_slots_as_they_are(
    rule: RowRule, randomize: Randomize
) -> None:
    """With clipping and L2 on the tables, bit by bit."""
    model, batch = made(randomize), batch_of()
    tables = model.backbone.embeddings
    optimizer = HybridOptimizer(0.1, 0.1, rule=rule, table_l2=0.1, clip_norm=0.5)
    dense = [v for v in model.trainable_variables if "table_" not in v.name]
    optimizer.build([tables], dense)

    def step(task: int | None) -> None:
        with tf.GradientTape() as tape:
            losses = tf.nn.sigmoid_cross_entropy_with_logits(batch["labels"], model(batch))
            loss = tf.reduce_mean(losses if task is None else losses[:, task])
        variables = [*tables.all_parts(), *dense]
        gradients = tape.gradient(loss, variables)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    def state() -> dict[str, np.ndarray]:
        slots = {v.name: v.numpy() for v in optimizer.variables if "table_" in v.name}
        return slots | {p.name: p.numpy() for p in tables.all_parts()}

    step(None)  # slots that hold something
    before = state()
    step(1)
    moved = 0
    for name, value in state().items():
        if not value.ndim or value.shape[-1] % tables.sets:
            continue
        apart = [v.reshape(len(v), tables.sets, -1) for v in (before[name], value)]
        for k in (0, 2):
            assert np.array_equal(apart[0][:, k], apart[1][:, k]), (name, k)
        moved += not np.array_equal(apart[0][:, 1], apart[1][:, 1])
        moved += not np.array_equal(apart[0][:, T], apart[1][:, T])
    assert moved >= 2 * len(tables.all_parts())


def test_blind_gates_that_read_their_own_set_make_it_me_ple(randomize: Randomize) -> None:
    stem = made(randomize, see_others=False, gate_input="task")
    sizes: dict[str, Any] = {"expert_units": [8, 5], "task_units": [4], "task_experts": 2}
    tables = EmbeddingsConfig(dim=D, init_scale=0.5, sets=T + 1)
    other = MEPLE(THREE, NETWORK, tables, MEPLEConfig(levels=1, **sizes), seed=1)
    batch = batch_of()
    other(batch)
    randomize(other)
    assert [v.shape for v in stem.trainable_variables] == [
        v.shape for v in other.trainable_variables
    ]
    found = []
    for model in (stem, other):
        with tf.GradientTape() as tape:
            loss = model.loss_terms(batch)["tasks"]
        gradients = tape.gradient(loss, model.trainable_variables)
        found.append([model(batch).numpy(), *(tf.convert_to_tensor(g).numpy() for g in gradients)])
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([["click", "lyke"]], "unknown task 'lyke'.*Did you mean 'like'"),
        ([["click", "like"], ["like"]], "task 'like' more than once"),
    ],
)
def test_groups_that_are_none_are_refused(groups: list[list[str]], message: str) -> None:
    options = STEMConfig(groups=groups)
    with pytest.raises(UserError, match=message):
        STEM.refuse(options, EmbeddingsConfig(sets=3), TASKS)
