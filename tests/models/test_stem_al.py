"""What main and auxiliary tasks reach in STEM-AL, and which of them are served."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.models.stem_al import STEMAL, STEMALConfig
from lfm4ads_tf.models.upstream_config import UpstreamConfig
from tests.models.test_mixture_models import expert_layers, mlp, softmax
from tests.models.test_stem import TASKS, THREE, D, T, batch_of
from tests.rounding import assert_close
from tests.small_models import NETWORK

pytestmark = pytest.mark.processor

Randomize = Callable[..., None]
MAIN, AUXILIARY = (0, 2), 1


def made(randomize: Randomize, **options: Any) -> STEMAL:
    sizes: dict[str, Any] = {"expert_units": [8, 5], "task_units": [4], "task_experts": 1}
    given = STEMALConfig(auxiliary=[TASKS[AUXILIARY]], **{**sizes, **options})
    tables = EmbeddingsConfig(dim=D, init_scale=0.5, sets=T)
    model = STEMAL(THREE, NETWORK, tables, given, seed=1)
    model(batch_of())
    randomize(model)
    return model


def reached(model: STEMAL, task: int) -> dict[str, list[bool]]:
    """Which sets and first experts, and which gates, a task's loss has a gradient of."""
    tables, layer = model.backbone.embeddings, model.experts
    parts, batch = tables.all_parts(), batch_of()
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(
            tf.nn.sigmoid_cross_entropy_with_logits(batch["labels"][:, task], model(batch)[:, task])
        )
    kernels = [layer.experts[0].kernel, layer.gates[-1].kernel]
    of_experts, of_gates, *of_parts = tape.gradient(
        loss, [*kernels, *parts], unconnected_gradients="zero"
    )
    sets = np.zeros(T, bool)
    for gradient in of_parts:
        dense = tf.convert_to_tensor(gradient).numpy()
        sets |= np.abs(dense.reshape(len(dense), T, -1)).max(axis=(0, 2)) > 0
    return {
        "experts": [bool(np.any(g)) for g in of_experts],
        "gates": [bool(np.any(g)) for g in of_gates],
        "sets": [bool(s) for s in sets],
    }


@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("task", range(T))
def test_a_tasks_loss_reaches_its_own_part_alone(
    task: int, levels: int, randomize: Randomize
) -> None:
    found = reached(made(randomize, levels=levels), task)
    own = [t == task for t in range(T)]
    gates = found.pop("gates")
    assert found == {"experts": own, "sets": own}
    if task == AUXILIARY:  # its gate has one expert, whose weight is 1 but for rounding
        gates[task] = True
    assert gates == own


def test_without_the_cut_main_losses_reach_all_and_auxiliary_ones_their_own(
    randomize: Randomize,
) -> None:
    model = made(randomize, all_backward=True)
    for task in MAIN:
        found = reached(model, task)
        assert all(found["experts"]) and all(found["sets"])
    assert reached(model, AUXILIARY)["sets"] == [t == AUXILIARY for t in range(T)]


def test_main_gates_mix_all_experts_and_auxiliary_ones_their_own(randomize: Randomize) -> None:
    model, batch = made(randomize, task_experts=2), batch_of()
    found, layer = model.represent(batch), model.experts
    x = [v.astype(np.float64) for v in np.split(found["towers"].numpy(), T, axis=1)]
    bank, gates = layer.experts[0], layer.gates[0]
    outputs = [mlp(x[e // 2], expert_layers(bank, e)) for e in range(2 * T)]
    for t, task in enumerate(TASKS):
        seen = [2 * t, 2 * t + 1] if t == AUXILIARY else [*range(2 * T)]
        weights = softmax(x[t] @ gates.kernel.numpy()[t][:, : len(seen)])
        expected = sum(weights[:, k, None] * outputs[e] for k, e in enumerate(seen))
        assert_close(found[f"mix_{task}"], expected, terms=60)


def test_main_tasks_are_served_and_handed_over(randomize: Randomize) -> None:
    model = made(randomize)
    assert model.served_tasks == ["click", "like"]
    config = UpstreamConfig(model="stem_al", stem_al={"auxiliary": ["buy"]})
    names = [f"mix_{task}" for task in TASKS]
    assert STEMAL.handed_over(config, TASKS, names) == ["mix_click", "mix_like"]
    assert STEMAL.handed_over(config, TASKS, ["towers"]) == ["towers"]


@pytest.mark.parametrize(
    ("auxiliary", "message"),
    [
        ([], "a task that is auxiliary and one that is not"),
        ([*TASKS], "a task that is auxiliary and one that is not"),
        (["lyke"], "unknown task 'lyke'.*Did you mean 'like'"),
        (["like", "like"], "task 'like' more than once"),
    ],
)
def test_tasks_that_cannot_be_auxiliary_are_refused(auxiliary: list[str], message: str) -> None:
    options = STEMALConfig(auxiliary=auxiliary)
    with pytest.raises(UserError, match=message):
        STEMAL.refuse(options, EmbeddingsConfig(sets=T), TASKS)
