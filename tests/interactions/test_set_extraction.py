"""Levels of experts over sets, against the formulas in NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from lfm4ads_tf.interactions.set_extraction import SetExtraction
from lfm4ads_tf.precision import training_precision

pytestmark = pytest.mark.processor

B, D, H = 4, 5, 3
READS = [0, 1, 0]  # the first and the third task share a set
T, K = len(READS), 3
CASES: list[dict[str, Any]] = [
    {"others": "cut", "gate_input": "sum"},
    {"others": "cut", "gate_input": "task", "gate_units": [4, 3], "gate_bias": True},
    {"others": "open", "gate_input": "sum", "strict": False},
    {"others": "hidden", "gate_input": "task", "strict": False},
    {"others": "hidden", "gate_input": "sum", "strict": True},
    {"others": "cut", "gate_input": "task", "shared": 0, "alone": [2]},
    {"others": "open", "gate_input": "task", "shared": 0, "alone": [0, 2], "gate_units": [4]},
    # experts so wide that the gates' products are made in theirs
    {"others": "cut", "gate_input": "sum", "units": [256, H], "gate_bias": True},
    {"others": "hidden", "gate_input": "task", "units": [256, H], "strict": False},
]
of_cases = pytest.mark.parametrize(
    "case",
    CASES,
    ids=lambda c: f"{c['others']}-{c['gate_input']}-{c.get('shared', 1)}-{'units' in c}",
)


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    """Layers of float64: finite differences need it."""
    before = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy("float64")
    yield
    tf_keras.mixed_precision.set_global_policy(before)


def made(levels: int, case: dict[str, Any]) -> tuple[SetExtraction, tf.Variable]:
    """The layer of two own and one shared expert with random weights, and what it reads."""
    options = {"shared": 1, "units": [4, H], **case}
    layer = SetExtraction(levels, READS, 2, seed=1, **options)
    rng = np.random.default_rng(3)
    sets = tf.Variable(rng.normal(size=(K - 1 + options["shared"], B, D)))
    layer(sets)
    for variable in layer.trainable_variables:
        variable.assign(rng.normal(0, 0.7, size=variable.shape))
    return layer, sets


Values = dict[str, np.ndarray]


def values_of(layer: SetExtraction, sets: tf.Variable) -> Values:
    """Every weight by its name, and what is read as `x`."""
    return {v.name: v.numpy() for v in layer.trainable_variables} | {"x": sets.numpy()}


def mlp(x: np.ndarray, layers: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    for kernel, bias in layers:
        x = np.maximum(x @ kernel + bias, 0)
    return x


def oracle(layer: SetExtraction, live: Values, case: dict[str, Any], frozen: Values) -> np.ndarray:
    """z^L (B, T, h) of the formulas; what is cut is computed of `frozen` in place of `live`."""
    shared = case.get("shared", 1)
    reads = [*READS, K - 1][: T + shared]
    of_live = [live["x"][k] for k in reads]
    of_frozen = [frozen["x"][k] for k in reads]
    owners = [0, 0, 1, 1, 2, 2, T][: 6 + shared]  # two experts of each task, then the shared one
    strict = case.get("strict", True)
    for experts, gates in zip(layer.experts, layer.gates, strict=True):
        outputs = []
        for values, z in ((live, of_live), (frozen, of_frozen)):
            layers = [(experts.kernel, experts.bias), *experts.deeper]
            own = [
                [(values[k.name][e], values[b.name][e]) for k, b in layers]
                for e in range(len(owners))
            ]
            outputs.append([mlp(z[owner], own[e]) for e, owner in enumerate(owners)])
        above = []
        for values, z, whole in ((live, of_live, False), (frozen, of_frozen, True)):
            mixed = []
            for g in range(gates.mix.gates):
                shared_gate = g == T
                read = z[g] + z[T] if case["gate_input"] == "sum" and not shared_gate else z[g]
                near = [shared_gate or owner in (g, T) for owner in owners]
                blind = case["others"] == "hidden" or g in case.get("alone", [])
                seen = [e for e in range(len(owners)) if near[e] or not blind]
                hidden = [(values[k.name][g], values[b.name][g]) for k, b in gates.hidden]
                scores = mlp(read, hidden) @ values[gates.kernel.name][g][:, : len(seen)]
                if gates.bias is not None:
                    scores = scores + values[gates.bias.name][g][:, : len(seen)]
                weights = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
                total = np.zeros((B, H))
                for k, e in enumerate(seen):
                    foreign = case["others"] == "cut" and not near[e]
                    cut = (strict and owners[e] < T) if shared_gate else foreign
                    total += weights[:, k, None] * outputs[1 if cut or whole else 0][e]
                mixed.append(total)
            above.append(mixed)
        of_live, of_frozen = above
    return np.stack(of_live, axis=1)


def products_of_sets(layer: SetExtraction, sets: tf.Variable) -> int:
    """How often all sets are multiplied at once."""
    step = tf.function(layer.call).get_concrete_function(tf.TensorSpec(sets.shape, sets.dtype))
    of_sets = [
        op
        for op in step.graph.get_operations()
        if "MatMul" in op.type and op.inputs[0].shape[-1] == D and len(op.inputs[0].shape) == 3
    ]
    return len(of_sets)


@of_cases
def test_the_sets_are_read_once_for_experts_and_gates_where_that_costs_less(
    case: dict[str, Any],
) -> None:
    layer, sets = made(1, case)
    assert products_of_sets(layer, sets) == (1 if "units" in case else 2)
    with training_precision("mixed_bfloat16"):  # which would round the gates' scores
        assert products_of_sets(layer, sets) == 2


@pytest.mark.parametrize("levels", [1, 2, 3])
@of_cases
def test_the_vectors_are_those_of_the_formulas(levels: int, case: dict[str, Any]) -> None:
    layer, sets = made(levels, case)
    values = values_of(layer, sets)
    expected = oracle(layer, values, case, values)
    np.testing.assert_allclose(layer(sets), expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("levels", [1, 2])
@of_cases
def test_gradients_are_those_of_what_is_not_cut(levels: int, case: dict[str, Any]) -> None:
    """Of every weight and input, along random directions, by central differences."""
    layer, sets = made(levels, case)
    base = values_of(layer, sets)
    draw = np.random.default_rng(9)
    factor = draw.normal(size=(B, T, H))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(sets) * factor)
    variables = [*layer.trainable_variables, sets]
    gradients = tape.gradient(total, variables, unconnected_gradients="zero")
    step = 1e-6
    for name, gradient in zip([*(v.name for v in variables[:-1]), "x"], gradients, strict=True):
        direction = draw.normal(size=base[name].shape)
        ends = [
            np.sum(oracle(layer, {**base, name: base[name] + s * direction}, case, base) * factor)
            for s in (-step, step)
        ]
        terms = np.abs(gradient.numpy() * direction).sum()
        difference = (ends[1] - ends[0]) / (2 * step)
        # the values are rounded, and divided by the step
        allowed = 1e-6 * terms + 1e-14 * max(np.abs(ends)) / step
        assert abs(difference - np.sum(gradient.numpy() * direction)) <= allowed, name


@pytest.mark.parametrize("levels", [1, 2])
def test_a_tasks_loss_reaches_its_own_and_the_shared_set_alone(levels: int) -> None:
    layer, sets = made(levels, {"others": "cut", "gate_input": "sum"})
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(sets)[:, 1])  # of the task whose set no other reads
    of_sets, *of_kernels = tape.gradient(
        total, [sets, *(e.kernel for e in layer.experts), *(g.kernel for g in layer.gates)]
    )
    assert np.abs(of_sets[0]).max() == 0 and np.abs(of_sets[1:]).max(axis=(1, 2)).all()
    for level in range(levels):
        reached = [bool(np.any(g)) for g in of_kernels[level]]
        assert reached == [False, False, True, True, False, False, True]
        of_gates = [bool(np.any(g)) for g in of_kernels[levels + level]]
        assert of_gates[:T] == [False, True, False]


def test_a_shared_gate_that_is_not_strict_lets_a_loss_through() -> None:
    layer, sets = made(2, {"others": "cut", "gate_input": "sum", "strict": False})
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(sets)[:, 1])
    assert np.abs(tape.gradient(total, sets)).max(axis=(1, 2)).all()


def test_one_set_alone_has_gates_of_its_own() -> None:
    layer = SetExtraction(1, [0, 0], 1, 0, [256, H], gate_input="task", seed=1)
    assert layer(np.ones([1, B, D])).shape == (B, 2, H)


def test_without_shared_experts_nothing_shared_can_be_asked_for() -> None:
    for asked in ({"gate_input": "sum"}, {"gate_input": "task", "shared_output": True}):
        with pytest.raises(ValueError, match="Without shared experts"):
            SetExtraction(1, READS, 2, 0, [H], **asked)  # type: ignore[arg-type]
