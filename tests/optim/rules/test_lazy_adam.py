"""LazyAdam against NumPy and dense Adam and AdamW of tf_keras."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lfm4ads_tf.optim.rules.adam import LazyAdam
from tests.rounding import assert_close

Run = Callable[..., tuple[np.ndarray, list[np.ndarray]]]
RATES = [0.01, 0.02, 0.01, 0.005, 0.03, 0.01]


@settings(max_examples=30, deadline=None)
@given(
    beta_1=st.floats(0.0, 0.99),
    beta_2=st.floats(0.5, 0.999),
    epsilon=st.floats(1e-8, 1.0),
    weight_decay=st.floats(0.0, 2.0),
)
@example(beta_1=0.9, beta_2=0.999, epsilon=1e-7, weight_decay=0.0)
def test_equals_numpy(
    start: np.ndarray,
    gradients: np.ndarray,
    run_rule: Run,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    weight_decay: float,
) -> None:
    rule = LazyAdam(beta_1, beta_2, epsilon, weight_decay)
    found, (m_found, v_found, steps) = run_rule(rule, start, gradients, RATES)
    # a rule's numbers are float32: 1 - float32(0.999) is 1e-5 off 0.001, more than the tolerance
    b1, b2 = float(np.float32(beta_1)), float(np.float32(beta_2))
    w, m, v = start.astype(np.float64), np.zeros(start.shape), np.zeros(start.shape)
    for t, (g, rate) in enumerate(zip(gradients.astype(np.float64), RATES, strict=True), 1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        w = w - rate * weight_decay * w
        w = w - rate * np.sqrt(1 - b2**t) / (1 - b1**t) * m / (np.sqrt(v) + epsilon)
    assert_close(found, w, terms=48)
    assert_close(m_found, m, terms=48)
    np.testing.assert_allclose(v_found, v, rtol=1e-5, atol=1e-9)
    np.testing.assert_array_equal(steps, np.full((5, 3, 1), 6.0))


@pytest.mark.parametrize("legacy", [False, True])
def test_touched_at_every_step_it_is_dense_adam(
    start: np.ndarray, gradients: np.ndarray, run_rule: Run, legacy: bool
) -> None:
    kind = tf_keras.optimizers.legacy.Adam if legacy else tf_keras.optimizers.Adam
    expected = _dense(kind(0.01, beta_1=0.8, beta_2=0.99, epsilon=1e-5), start, gradients)
    found, _ = run_rule(LazyAdam(0.8, 0.99, 1e-5), start, gradients, 0.01)
    assert_close(found, expected, terms=48)


def test_touched_at_every_step_it_is_dense_adamw(
    start: np.ndarray, gradients: np.ndarray, run_rule: Run
) -> None:
    dense = tf_keras.optimizers.AdamW(0.1, weight_decay=0.2, beta_1=0.8, beta_2=0.99, epsilon=1e-5)
    found, _ = run_rule(LazyAdam(0.8, 0.99, 1e-5, 0.2), start, gradients, 0.1)
    assert_close(found, _dense(dense, start, gradients), terms=48)
    plain, _ = run_rule(LazyAdam(0.8, 0.99, 1e-5), start, gradients, 0.1)
    assert np.abs(found - plain).max() > 0.05


def test_the_decay_takes_its_share_of_the_old_weight(
    start: np.ndarray, gradients: np.ndarray, run_rule: Run
) -> None:
    one = start, gradients[:1], 0.1
    plain, slots = run_rule(LazyAdam(weight_decay=0.0), *one)
    decayed, decayed_slots = run_rule(LazyAdam(weight_decay=0.5), *one)
    np.testing.assert_allclose(plain - decayed, 0.05 * start, rtol=1e-4, atol=1e-6)
    for slot, other in zip(slots, decayed_slots, strict=True):
        np.testing.assert_array_equal(slot, other)


def test_rows_and_sets_count_their_own_touches(
    start: np.ndarray, gradients: np.ndarray, run_rule: Run
) -> None:
    """A set at its touch t, beside others at other touches, steps as if it were alone."""
    rule = LazyAdam()
    states = [run_rule(rule, start, gradients[:done], 0.01) for done in range(4)]
    done = np.random.default_rng(3).integers(0, 4, (5, 3))  # touches so far
    assert len(np.unique(done)) == 4

    def mixed(parts: list[np.ndarray]) -> tf.Tensor:
        stacked = np.stack(parts, axis=2)  # (U, K, 4, D or 1)
        return tf.constant(np.take_along_axis(stacked, done[..., None, None], axis=2)[:, :, 0])

    weights = mixed([w for w, _ in states])
    slots = tuple(mixed([s[i] for _, s in states]) for i in range(3))
    gradient = mixed(list(gradients[:4]))
    found, (_, _, steps) = rule.update(weights, slots, gradient, tf.constant(0.01))
    after = [run_rule(rule, start, gradients[: t + 1], 0.01)[0] for t in range(4)]
    assert_close(found, mixed(after), terms=48)
    np.testing.assert_array_equal(steps[..., 0], done + 1)


def test_the_first_touch_moves_by_the_rate_at_any_beta(run_rule: Run) -> None:
    gradient = np.array([[[3.0, -0.5, 0.0, 1e-3]]], np.float32)
    for beta_1, beta_2 in [(0.9, 0.999), (0.0, 0.0), (0.99, 0.9999), (0.9, 0.999999)]:
        rule = LazyAdam(beta_1, beta_2, 1e-12)
        found, _ = run_rule(rule, np.zeros_like(gradient), [gradient], 0.2)
        np.testing.assert_allclose(found, [[[-0.2, 0.2, 0.0, -0.2]]], rtol=1e-5)


def test_the_count_stops_where_float32_does() -> None:
    many = tf.fill([1, 1, 1], 2.0**24)
    gradient = tf.ones([1, 1, 2])
    weights, (_, _, steps) = LazyAdam().update(
        tf.zeros([1, 1, 2]), (gradient, gradient, many), gradient, tf.constant(0.1)
    )
    np.testing.assert_array_equal(steps, many)
    np.testing.assert_allclose(weights, np.full((1, 1, 2), -0.1), rtol=1e-5)


def _dense(optimizer: object, start: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    variable = tf.Variable(start)
    for gradient in gradients:
        optimizer.apply_gradients([(tf.constant(gradient), variable)])
    return variable.numpy()
