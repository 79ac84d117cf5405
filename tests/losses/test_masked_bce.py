from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.losses.masked_bce import masked_bce
from tests.rounding import room

pytestmark = pytest.mark.processor


def oracle(labels: np.ndarray, logits: np.ndarray, weights: np.ndarray) -> float:
    total = 0.0
    for b in range(labels.shape[0]):
        for t in range(labels.shape[1]):
            if not np.isnan(labels[b, t]):
                p = 1 / (1 + np.exp(-float(logits[b, t])))
                y = labels[b, t]
                total -= weights[t] * (y * np.log(p) + (1 - y) * np.log(1 - p))
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
