"""The covariance penalty against its formula, its gradient, and its sampled form."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.losses.covariance import Normalise, covariance_penalty, sampling_floor

pytestmark = pytest.mark.processor


def drawn(rows: int, experts: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(rows, 1, width))
    return rng.normal(size=(rows, experts, width)) + 0.5 * common + 3


def formula(outputs: np.ndarray, normalise: Normalise) -> tuple[float, np.ndarray]:
    """L and dL / dO, pair by pair."""
    rows, experts, width = outputs.shape
    centred = outputs - outputs.mean(axis=0)
    factor = 1 / width**2 / (rows - 1 if normalise == "rows" else 1)
    total, gradient = 0.0, np.zeros_like(outputs)
    for p in range(experts):
        for q in range(experts):
            if p == q:
                continue
            covariance = centred[:, p].T @ centred[:, q]
            total += np.abs(covariance).sum() * factor * (p > q)
            gradient[:, p] += factor * centred[:, q] @ np.sign(covariance).T
    return total, gradient


@pytest.mark.parametrize("normalise", ["rows", "none"])
@pytest.mark.parametrize(("rows", "experts", "width"), [(40, 4, 3), (2, 2, 1), (7, 1, 2)])
def test_the_penalty_and_its_gradient_are_the_formulas(
    rows: int, experts: int, width: int, normalise: Normalise
) -> None:
    outputs = drawn(rows, experts, width)
    given = tf.constant(outputs)
    with tf.GradientTape() as tape:
        tape.watch(given)
        found = 2 * covariance_penalty(given, normalise=normalise)
    expected, gradient = formula(outputs, normalise)
    np.testing.assert_allclose(found, 2 * expected, rtol=1e-12)
    size = np.abs(gradient).max()
    np.testing.assert_allclose(
        tape.gradient(found, given), 2 * gradient, rtol=1e-9, atol=1e-12 * size
    )


def test_the_gradient_is_that_of_finite_differences() -> None:
    outputs, rng = drawn(30, 3, 4), np.random.default_rng(1)
    direction = rng.normal(size=outputs.shape)
    step = 1e-6
    ends = [formula(outputs + s * direction, "rows")[0] for s in (-step, step)]
    gradient = formula(outputs, "rows")[1]
    along = float(np.sum(gradient * direction))
    terms = float(np.abs(gradient * direction).sum())
    # no covariance is so close to 0 that the step changes its sign; the ends are rounded
    assert abs((ends[1] - ends[0]) / (2 * step) - along) <= 1e-6 * terms + 1e-15 * ends[0] / step


def test_experts_that_shrink_and_those_that_share_nothing() -> None:
    outputs = drawn(50, 3, 2)
    full = float(covariance_penalty(tf.constant(outputs)))
    np.testing.assert_allclose(covariance_penalty(tf.constant(outputs / 2)), full / 4, rtol=1e-12)
    apart = np.zeros((4, 2, 1))
    apart[:, 0, 0], apart[:, 1, 0] = [1, -1, 1, -1], [1, 1, -1, -1]
    assert float(covariance_penalty(tf.constant(apart))) == 0.0
    for rows in (0, 1):
        assert np.isfinite(covariance_penalty(tf.constant(outputs[:rows]), rows=32))


def test_a_sample_is_spread_over_the_batch_and_scaled() -> None:
    outputs = drawn(40, 3, 2)
    places = np.arange(8) * 40 // 8
    for normalise, scale in (("rows", 1.0), ("none", 39 / 7)):
        expected = formula(outputs[places], normalise)[0] * scale  # type: ignore[arg-type]
        found = covariance_penalty(tf.constant(outputs), rows=8, normalise=normalise)  # type: ignore[arg-type]
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    whole = covariance_penalty(tf.constant(outputs))
    np.testing.assert_allclose(covariance_penalty(tf.constant(outputs), rows=99), whole, rtol=1e-12)


def test_a_sample_of_independent_experts_reads_the_floor() -> None:
    """2,000 draws: C is unbiased, |C| is not. 5 % is more than 20 standard errors."""
    rows, experts, width = 32, 3, 2
    draws = np.random.default_rng(5).normal(size=(2000, rows, experts, width))
    centred = draws - draws.mean(axis=1, keepdims=True)
    covariances = np.einsum("nra,nrb->nab", centred[:, :, 0], centred[:, :, 1]) / (rows - 1)
    error = covariances.std(axis=0) / np.sqrt(len(draws))
    assert (np.abs(covariances.mean(axis=0)) < 5 * error).all()
    found = np.mean([float(covariance_penalty(tf.constant(d))) for d in draws[:400]])
    assert abs(found / sampling_floor(experts, rows) - 1) < 0.05
    assert abs(sampling_floor(2, 32) - 0.143) < 0.001
