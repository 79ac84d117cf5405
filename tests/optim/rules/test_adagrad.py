"""Adagrad against NumPy and, where the conventions of epsilon meet, tf_keras."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tf_keras
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.optim.rules.adagrad import Adagrad
from tests.rounding import assert_close

Run = Callable[..., tuple[np.ndarray, list[np.ndarray]]]
RATES = [0.1, 0.1, 0.05, 0.2, 0.01, 0.1]


@settings(max_examples=30, deadline=None)
@given(
    initial=st.floats(0.0, 5.0),
    epsilon=st.floats(1e-8, 1.0),
    row_wise=st.booleans(),
    width=st.integers(1, 4),
)
def test_equals_numpy(
    start: np.ndarray,
    gradients: np.ndarray,
    run_rule: Run,
    row_wise: bool,
    initial: float,
    epsilon: float,
    width: int,
) -> None:
    start, gradients = start[..., :width], gradients[..., :width]
    rule = Adagrad(initial, epsilon, row_wise)
    found, (accumulator,) = run_rule(rule, start, gradients, RATES)
    weights = start.astype(np.float64)
    sums = np.full((5, 3, 1 if row_wise else width), initial)
    for g, rate in zip(gradients.astype(np.float64), RATES, strict=True):
        sums = sums + (np.mean(g**2, axis=2, keepdims=True) if row_wise else g**2)
        weights = weights - rate * g / (np.sqrt(sums) + epsilon)
    assert_close(found, weights, terms=48)
    np.testing.assert_allclose(accumulator, sums, rtol=1e-5)


def test_equals_the_legacy_kernel(start: np.ndarray, gradients: np.ndarray, run_rule: Run) -> None:
    """Of tf_keras only legacy Adagrad adds epsilon outside the root; the new one adds it inside."""
    variable = tf.Variable(start)
    optimizer = tf_keras.optimizers.legacy.Adagrad(0.1, initial_accumulator_value=0.3, epsilon=0.01)
    for gradient in gradients:
        optimizer.apply_gradients([(tf.constant(gradient), variable)])
    found, (accumulator,) = run_rule(Adagrad(0.3, 0.01), start, gradients, 0.1)
    assert_close(found, variable, terms=48)
    np.testing.assert_allclose(accumulator, optimizer.get_slot(variable, "accumulator"), rtol=1e-5)


def test_both_forms_are_one_at_width_1(
    start: np.ndarray, gradients: np.ndarray, run_rule: Run
) -> None:
    narrow = start[..., :1], gradients[..., :1], RATES
    one, (slot,) = run_rule(Adagrad(row_wise=False), *narrow)
    other, (row_slot,) = run_rule(Adagrad(row_wise=True), *narrow)
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(slot, row_slot)


def test_row_wise_is_element_wise_for_one_size_within_a_set(
    start: np.ndarray, gradients: np.ndarray, run_rule: Run
) -> None:
    size = np.abs(gradients[..., :1]) * np.sign(start)  # (6, U, K, D), equal up to the sign
    one, (slot,) = run_rule(Adagrad(row_wise=False), start, size, RATES)
    other, (row_slot,) = run_rule(Adagrad(row_wise=True), start, size, RATES)
    assert_close(one, other, terms=48)
    np.testing.assert_allclose(slot, np.broadcast_to(row_slot, slot.shape), rtol=1e-6)


def test_the_first_step_without_history_has_the_size_of_the_rate(run_rule: Run) -> None:
    gradient = np.array([[[3.0, -0.5, 0.0, 1e-3]]], np.float32)
    found, _ = run_rule(
        Adagrad(initial=0.0, epsilon=1e-10), np.zeros_like(gradient), [gradient], 0.2
    )
    np.testing.assert_allclose(found, [[[-0.2, 0.2, 0.0, -0.2]]], rtol=1e-5)
