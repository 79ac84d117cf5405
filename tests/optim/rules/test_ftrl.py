"""FTRL-proximal against the published algorithm in NumPy and tf_keras."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from lfm4ads_tf.optim.rules.ftrl import Ftrl
from tests.rounding import assert_close

Run = Callable[..., tuple[np.ndarray, list[np.ndarray]]]
RATES = [0.1, 0.1, 0.05, 0.2, 0.02, 0.1]
OPTIONS = [
    {},
    {"l1": 0.5},
    {"l2": 0.3, "beta": 1.0},
    {"initial": 0.0, "beta": 1.0, "l1": 0.2, "l2": 0.1},
    {"learning_rate_power": -0.7, "l1": 0.01},
    {"learning_rate_power": 0.0, "initial": 0.0, "l2": 0.2},
]


@settings(max_examples=30, deadline=None)
@given(
    rule=st.builds(
        Ftrl,
        initial=st.floats(0.01, 5.0),
        l1=st.floats(0.0, 2.0),
        l2=st.floats(0.0, 2.0),
        learning_rate_power=st.floats(-1.0, 0.0) | st.just(-0.5),
        beta=st.floats(0.0, 2.0),
    )
)
@example(rule=Ftrl())
@example(rule=Ftrl(initial=0.0, beta=1.0, l1=0.2, l2=0.1))
def test_equals_numpy(start: np.ndarray, gradients: np.ndarray, run_rule: Run, rule: Ftrl) -> None:
    found, (accumulator, linear) = run_rule(rule, start, gradients, RATES)
    w, n, z = start.astype(np.float64), np.full(start.shape, rule.initial), np.zeros(start.shape)
    for g, rate in zip(gradients.astype(np.float64), RATES, strict=True):
        p = -rule.learning_rate_power
        sigma = ((n + g**2) ** p - n**p) / rate
        n, z = n + g**2, z + g - sigma * w
        curvature = (rule.beta + n**p) / rate + 2 * rule.l2
        w = np.where(np.abs(z) <= rule.l1, 0.0, (np.sign(z) * rule.l1 - z) / curvature)
    # z is a difference of terms of the size of z; where they cancel, the rounding of them stays
    np.testing.assert_allclose(accumulator, n, rtol=1e-5)
    assert_close(linear, z, terms=48)
    assert_close(found, w, terms=48)
    np.testing.assert_array_equal(found == 0.0, w == 0.0)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("options", OPTIONS)
def test_touched_at_every_step_it_is_dense_ftrl(
    start: np.ndarray, gradients: np.ndarray, run_rule: Run, options: dict[str, float], legacy: bool
) -> None:
    rule = Ftrl(**options)
    kind = tf_keras.optimizers.legacy.Ftrl if legacy else tf_keras.optimizers.Ftrl
    optimizer = kind(
        0.1,
        learning_rate_power=rule.learning_rate_power,
        initial_accumulator_value=rule.initial,
        l1_regularization_strength=rule.l1,
        l2_regularization_strength=rule.l2,
        beta=rule.beta,
    )
    variable = tf.Variable(start)
    for gradient in gradients:
        optimizer.apply_gradients([(tf.constant(gradient), variable)])
    found, (accumulator, linear) = run_rule(rule, start, gradients, 0.1)
    assert_close(found, variable, terms=48)
    if legacy:
        slot = optimizer.get_slot(variable, "accumulator")
        np.testing.assert_allclose(accumulator, slot, rtol=1e-5)
        slot = optimizer.get_slot(variable, "linear").numpy()
        assert_close(linear, slot, terms=48)


def test_the_weight_minimises_the_regularized_sum_of_losses(run_rule: Run) -> None:
    """From w = 0 the weight is the argmin of the paper's equation, found by a line search."""
    rule, rate = Ftrl(initial=0.1, l1=0.3, l2=0.2, beta=0.5), 0.4
    seen, centres, sums, pulls = [], [], [], []
    weight = np.zeros((1, 1, 1), np.float32)
    total = 0.1
    for gradient in [2.0, -0.7, 1.5, -3.0]:
        seen.append(np.full((1, 1, 1), gradient, np.float32))
        centres.append(float(weight[0, 0, 0]))
        sums.append(gradient)
        pulls.append((np.sqrt(total + gradient**2) - np.sqrt(total)) / rate)
        total += gradient**2
        weight, _ = run_rule(rule, np.zeros((1, 1, 1), np.float32), np.array(seen), rate)
        fixed = (np.sqrt(0.1) + rule.beta) / rate + 2 * rule.l2

        def objective(x: float, fixed: float = fixed) -> float:
            near = sum(p * (x - c) ** 2 for p, c in zip(pulls, centres, strict=True))
            return sum(sums) * x + 0.5 * near + 0.5 * fixed * x**2 + rule.l1 * abs(x)

        best = minimize_scalar(objective, bounds=(-5, 5), method="bounded", options={"xatol": 1e-9})
        np.testing.assert_allclose(weight[0, 0, 0], best.x, atol=1e-5)


def test_a_constant_step_size_without_penalties_is_gradient_descent(
    gradients: np.ndarray, run_rule: Run
) -> None:
    zeros = np.zeros(gradients.shape[1:], np.float32)
    rule = Ftrl(learning_rate_power=0.0, initial=0.0)
    found, _ = run_rule(rule, zeros, gradients, 0.1)
    assert_close(found, -0.1 * gradients.sum(axis=0), terms=48)


def test_l1_makes_exact_zeros_and_more_of_them_when_stronger(
    start: np.ndarray, gradients: np.ndarray, run_rule: Run
) -> None:
    zeros = [
        int(np.sum(run_rule(Ftrl(l1=l1), start, gradients, 0.1)[0] == 0.0))
        for l1 in (0.0, 1.0, 50.0, 1e4)
    ]
    assert zeros[0] < zeros[1] < zeros[2] < zeros[3] == start.size


def test_an_element_without_a_gradient_stays_finite(run_rule: Run) -> None:
    zeros = np.zeros((1, 1, 2), np.float32)
    gradient = np.array([[[0.0, 1.0]]], np.float32)
    for options in ({}, {"initial": 0.0, "beta": 1.0}, {"initial": 0.0, "l2": 1.0}):
        found, _ = run_rule(Ftrl(**options), zeros, [gradient], 0.1)
        assert found[0, 0, 0] == 0.0 and found[0, 0, 1] < 0.0


def test_a_touched_weight_waits_where_dense_ftrl_would_keep_it(
    start: np.ndarray, gradients: np.ndarray, run_rule: Run
) -> None:
    rule = Ftrl(l1=0.1, l2=0.2, beta=0.5)
    once, _ = run_rule(rule, start, gradients[:1], 0.1)
    later, _ = run_rule(rule, start, np.stack([gradients[0], 0 * gradients[0]]), 0.1)
    np.testing.assert_array_equal(once, later)


def test_the_share_of_an_initial_weight_that_a_first_touch_keeps(run_rule: Run) -> None:
    rule, gradient = Ftrl(initial=0.1, l2=0.2, beta=0.5), np.full((1, 1, 1), 0.4, np.float32)
    kept, _ = run_rule(rule, np.ones((1, 1, 1), np.float32), [gradient], 0.3)
    moved, _ = run_rule(rule, np.zeros((1, 1, 1), np.float32), [gradient], 0.3)
    before, after = np.sqrt(0.1), np.sqrt(0.1 + 0.16)
    share = (after - before) / (after + 0.5 + 2 * 0.2 * 0.3)
    np.testing.assert_allclose(kept - moved, share, rtol=1e-5)
