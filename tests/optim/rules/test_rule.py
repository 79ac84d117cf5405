"""What every update rule promises: shapes, independence of rows and sets, purity."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.optim.rules.adagrad import Adagrad
from lfm4ads_tf.optim.rules.adam import LazyAdam
from lfm4ads_tf.optim.rules.ftrl import Ftrl
from lfm4ads_tf.optim.rules.rule import RowRule
from lfm4ads_tf.optim.rules.sgd import Sgd
from tests.rounding import assert_close

pytestmark = pytest.mark.processor

share = st.floats(0.0, 0.999)
strength = st.floats(0.0, 2.0)
RULES = st.one_of(
    st.builds(Adagrad, strength, st.floats(1e-8, 1.0), st.booleans()),
    st.builds(LazyAdam, share, share, st.floats(1e-8, 1.0), strength),
    st.builds(Ftrl, st.floats(0.01, 2.0), strength, strength, st.floats(-1.0, 0.0), strength),
    st.builds(Sgd, st.floats(0.1, 0.99), st.booleans()),
    st.builds(Sgd),
)
EXAMPLES = [
    Adagrad(),
    Adagrad(row_wise=True),
    LazyAdam(),
    LazyAdam(weight_decay=0.1),
    Ftrl(l1=0.1),
    Ftrl(learning_rate_power=-0.3),
    Sgd(),
    Sgd(0.9),
    Sgd(0.9, True),
]


def state(
    rule: RowRule, shape: tuple[int, int, int], seed: int
) -> tuple[tf.Tensor, tuple[tf.Tensor, ...], tf.Tensor]:
    """Weights, slots as some touches would leave them, and a gradient."""
    rng = np.random.default_rng(seed)
    weights, gradient = (tf.constant(rng.normal(size=shape), tf.float32) for _ in range(2))
    slots = tuple(
        tf.constant(
            rng.integers(0, 50, (*shape[:2], 1))
            if slot.name == "step"
            else slot.initial + rng.random((*shape[:2], shape[2] if slot.per_element else 1)),
            tf.float32,
        )
        for slot in rule.slots
    )
    return weights, slots, gradient


@settings(max_examples=40, deadline=None)
@given(
    rule=RULES,
    units=st.integers(0, 7),
    sets=st.integers(1, 3),
    width=st.integers(1, 9),
    seed=st.integers(0, 2**16),
)
def test_rows_and_sets_are_independent(
    rule: RowRule, units: int, sets: int, width: int, seed: int
) -> None:
    weights, slots, gradient = state(rule, (units, sets, width), seed)
    rate = tf.constant(0.1)
    found, found_slots = rule.update(weights, slots, gradient, rate)
    assert found.shape == weights.shape and found.dtype == tf.float32
    assert [s.shape for s in found_slots] == [s.shape for s in slots]
    assert all(np.isfinite(value).all() for value in (found, *found_slots))
    for u in range(units):
        for k in range(sets):
            one = slice(u, u + 1), slice(k, k + 1)
            alone, alone_slots = rule.update(
                weights[one], tuple(s[one] for s in slots), gradient[one], rate
            )
            # not bit by bit: a vector kernel may round its tail another way; all is of unit scale
            np.testing.assert_allclose(alone, found[one], rtol=2e-5, atol=1e-5)
            for slot, whole in zip(alone_slots, found_slots, strict=True):
                np.testing.assert_allclose(slot, whole[one], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rule", EXAMPLES, ids=repr)
def test_a_step_goes_against_the_gradient_and_scales_with_the_rate(rule: RowRule) -> None:
    """From weights of 0 and fresh slots; l1 holds back gradients below it."""
    gradient = tf.constant([[[0.5, -2.0, 1.0]]])
    slots = tuple(
        tf.fill([1, 1, 3 if slot.per_element else 1], slot.initial) for slot in rule.slots
    )
    small, large = (
        rule.update(tf.zeros([1, 1, 3]), slots, gradient, tf.constant(rate))[0].numpy()
        for rate in (0.1, 0.2)
    )
    np.testing.assert_array_equal(np.sign(small), -np.sign(gradient))
    np.testing.assert_allclose(large, 2.0 * small, rtol=1e-5)


@pytest.mark.parametrize("rule", EXAMPLES, ids=repr)
def test_eager_and_graph_agree_and_the_inputs_stay(rule: RowRule) -> None:
    weights, slots, gradient = state(rule, (4, 2, 5), 1)
    before = [value.numpy() for value in (weights, *slots, gradient)]
    eager, eager_slots = rule.update(weights, slots, gradient, tf.constant(0.1))
    for value, old in zip((weights, *slots, gradient), before, strict=True):
        np.testing.assert_array_equal(value, old)

    # of unknown U, as in training
    free = tuple(tf.TensorSpec([None, *value.shape[1:]]) for value in (weights, *slots, gradient))

    @tf.function(input_signature=[*free, tf.TensorSpec([])])
    def step(*args: tf.Tensor) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        weights, *slots, gradient, rate = args
        return rule.update(weights, tuple(slots), gradient, rate)

    graph, graph_slots = step(weights, *slots, gradient, tf.constant(0.1))
    assert_close(graph, eager, terms=48)
    for value, other in zip(graph_slots, eager_slots, strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-6)
    ops = {op.type for op in step.get_concrete_function().graph.get_operations()}
    assert not any("Variable" in op or "Py" in op or op == "Assert" for op in ops), ops


@pytest.mark.parametrize("rule", EXAMPLES, ids=repr)
def test_rules_are_values(rule: RowRule) -> None:
    twin = dataclasses.replace(rule)
    assert twin == rule and hash(twin) == hash(rule) and {rule: 1}[twin] == 1
    assert [other for other in EXAMPLES if other == rule] == [rule]
    field = dataclasses.fields(rule)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(rule, field, 0.5)
    assert len({slot.name for slot in rule.slots}) == len(rule.slots)
