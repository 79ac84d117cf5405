from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.losses.masked_bce import masked_bce
from tests.rounding import room

pytestmark = pytest.mark.processor


def oracle(
    labels: np.ndarray, logits: np.ndarray, weights: np.ndarray, rows: np.ndarray | None = None
) -> float:
    total = 0.0
    if rows is None:
        rows = np.ones(labels.shape)
    rows = np.broadcast_to(rows if rows.ndim == 2 else rows[:, None], labels.shape)
    for b in range(labels.shape[0]):
        for t in range(labels.shape[1]):
            if not np.isnan(labels[b, t]):
                p = 1 / (1 + np.exp(-float(logits[b, t])))
                y = labels[b, t]
                total -= weights[t] * rows[b, t] * (y * np.log(p) + (1 - y) * np.log(1 - p))
    return total / labels.shape[0]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 20), st.integers(1, 3))
def test_equals_the_definition(seed: int, rows: int, tasks: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice([0.0, 1.0, np.nan], (rows, tasks)).astype(np.float32)
    logits = rng.normal(0, 2, (rows, tasks)).astype(np.float32)
    weights = rng.random(tasks).astype(np.float32)
    found = masked_bce(tf.constant(labels), tf.constant(logits), tf.constant(weights))
    # a term is at most the weight times |z| + log 2; the mean over the rows sums rows * tasks
    largest = weights.max() * (np.abs(logits).max() + np.log(2)) * tasks
    allowed = room(rows * tasks + 4, largest)
    assert float(found) == pytest.approx(oracle(labels, logits, weights), abs=allowed)


def drawn(seed: int, rows: int, tasks: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.choice([0.0, 1.0, np.nan], (rows, tasks)).astype(np.float32)
    logits = rng.normal(0, 2, (rows, tasks)).astype(np.float32)
    return labels, logits, rng.random(tasks).astype(np.float32)


def of(labels: Any, logits: Any, weights: Any, rows: Any = None) -> float:
    row_weights = None if rows is None else tf.constant(rows, tf.float32)
    return float(masked_bce(*map(tf.constant, (labels, logits, weights)), row_weights))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 20), st.integers(1, 3), st.booleans())
def test_row_weights_equal_the_definition(seed: int, rows: int, tasks: int, each: bool) -> None:
    labels, logits, weights = drawn(seed, rows, tasks)
    rng = np.random.default_rng(seed + 1)
    of_rows = rng.uniform(0, 3, (rows, tasks) if each else rows).astype(np.float32)
    largest = weights.max() * of_rows.max() * (np.abs(logits).max() + np.log(2)) * tasks
    allowed = room(rows * tasks + 5, largest)
    expected = oracle(labels, logits, weights, of_rows)
    assert of(labels, logits, weights, of_rows) == pytest.approx(expected, abs=allowed)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 3), st.booleans())
def test_weights_of_one_change_no_bit(seed: int, rows: int, tasks: int, each: bool) -> None:
    labels, logits, weights = drawn(seed, rows, tasks)
    ones = np.ones((rows, tasks) if each else rows)
    assert of(labels, logits, weights, ones) == of(labels, logits, weights)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 3))
def test_whole_weights_are_repeated_rows(seed: int, rows: int, tasks: int) -> None:
    """Up to the divisor: the sum over B rows of weight n is that over all of their copies."""
    labels, logits, weights = drawn(seed, rows, tasks)
    copies = np.random.default_rng(seed + 1).integers(0, 4, rows)
    if not copies.sum():
        copies[0] = 1
    repeated = of(np.repeat(labels, copies, 0), np.repeat(logits, copies, 0), weights)
    largest = weights.max() * copies.sum() * (np.abs(logits).max() + np.log(2)) * tasks
    allowed = room(copies.sum() * tasks + 5, largest)
    found = rows * of(labels, logits, weights, copies)
    assert found == pytest.approx(copies.sum() * repeated, abs=allowed)


def test_the_gradient_of_a_row_grows_with_its_weight() -> None:
    labels, logits = tf.constant([[0.0, 1.0], [1.0, 0.0]]), tf.Variable([[1.0, 0.0], [0.0, 2.0]])
    rows = tf.constant([[2.0, 0.0], [1.0, 3.0]])
    with tf.GradientTape() as tape:
        loss = masked_bce(labels, logits, tf.constant([1.0, 0.5]), rows)
    # d/dz = lambda w (sigmoid(z) - y) / B
    p = 1 / (1 + np.exp(-logits.numpy().astype(np.float64)))
    expected = np.array([1.0, 0.5]) * rows.numpy() * (p - labels.numpy()) / 2
    np.testing.assert_allclose(tape.gradient(loss, logits).numpy(), expected, atol=2e-7)


def test_an_unknown_label_gives_no_gradient() -> None:
    labels = tf.constant([[np.nan, 1.0], [0.0, np.nan]])
    logits = tf.Variable([[3.0, 0.0], [0.0, 5.0]])
    with tf.GradientTape() as tape:
        loss = masked_bce(labels, logits, tf.constant([1.0, 2.0]))
    # d/dz = lambda (sigmoid(z) - y) / B
    expected = [[0.0, 2 * -0.5 / 2], [0.5 / 2, 0.0]]
    np.testing.assert_allclose(tape.gradient(loss, logits).numpy(), expected, atol=1e-7)


def test_extreme_logits_stay_finite() -> None:
    loss = masked_bce(tf.constant([[1.0]]), tf.constant([[-500.0]]), tf.constant([1.0]))
    assert float(loss) == pytest.approx(500.0)
