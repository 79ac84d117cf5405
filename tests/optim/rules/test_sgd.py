"""Gradient descent against NumPy and tf_keras."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lfm4ads_tf.optim.rules.sgd import Sgd
from tests.rounding import assert_close

Run = Callable[..., tuple[np.ndarray, list[np.ndarray]]]
RATES = [0.1, 0.1, 0.05, 0.2, 0.02, 0.1]
KINDS = [(0.0, False), (0.9, False), (0.9, True), (0.3, True)]


@settings(max_examples=30, deadline=None)
@given(momentum=st.floats(1e-6, 0.999), nesterov=st.booleans())
@example(momentum=0.0, nesterov=False)
def test_equals_numpy(
    start: np.ndarray, gradients: np.ndarray, run_rule: Run, momentum: float, nesterov: bool
) -> None:
    found, slots = run_rule(Sgd(momentum, nesterov), start, gradients, RATES)
    w, m = start.astype(np.float64), np.zeros(start.shape)
    for g, rate in zip(gradients.astype(np.float64), RATES, strict=True):
        m = momentum * m + g
        w = w - rate * (g + momentum * m if nesterov else m)
    assert_close(found, w, terms=48)
    assert len(slots) == (1 if momentum else 0)
    for slot in slots:
        assert_close(slot, m, terms=48)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("momentum, nesterov", KINDS)
def test_touched_at_every_step_it_is_dense(
    start: np.ndarray,
    gradients: np.ndarray,
    run_rule: Run,
    momentum: float,
    nesterov: bool,
    legacy: bool,
) -> None:
    """At a constant rate: tf_keras gathers rate * g in its momentum, this rule g."""
    kind = tf_keras.optimizers.legacy.SGD if legacy else tf_keras.optimizers.SGD
    optimizer, variable = kind(0.1, momentum=momentum, nesterov=nesterov), tf.Variable(start)
    for gradient in gradients:
        optimizer.apply_gradients([(tf.constant(gradient), variable)])
    found, _ = run_rule(Sgd(momentum, nesterov), start, gradients, 0.1)
    assert_close(found, variable, terms=48)


def test_a_first_step_of_momentum_is_plain(
    start: np.ndarray, gradients: np.ndarray, run_rule: Run
) -> None:
    plain, _ = run_rule(Sgd(), start, gradients[:1], 0.1)
    heavy, _ = run_rule(Sgd(0.9), start, gradients[:1], 0.1)
    np.testing.assert_array_equal(plain, heavy)


def test_a_vanishing_momentum_is_plain(
    start: np.ndarray, gradients: np.ndarray, run_rule: Run
) -> None:
    plain, _ = run_rule(Sgd(0.0), start, gradients, 0.1)
    for nesterov in (False, True):
        light, _ = run_rule(Sgd(1e-12, nesterov), start, gradients, 0.1)
        np.testing.assert_allclose(light, plain, rtol=1e-6)
