"""AdamW beside a NumPy loop in float64."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from lfm4ads_tf.experiments.dense_adamw import DenseAdamW


def numpy_adamw(weight: np.ndarray, gradients: list[np.ndarray]) -> np.ndarray:
    first = second = np.zeros_like(weight)
    for step, gradient in enumerate(gradients, start=1):
        weight = weight - 1e-3 * 0.01 * weight
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        first_hat, second_hat = first / (1 - 0.9**step), second / (1 - 0.999**step)
        weight = weight - 1e-3 * first_hat / (np.sqrt(second_hat) + 1e-8)
    return weight


def test_equals_numpy() -> None:
    draw = np.random.default_rng(0)
    weight = draw.normal(size=(7, 3))
    # Down to gradients as small as eps, where its place matters.
    gradients = [draw.normal(size=(7, 3)) * 10.0 ** draw.uniform(-9, 0, (7, 3)) for _ in range(20)]
    variable = tf.Variable(weight, dtype=tf.float32)
    optimizer = DenseAdamW([variable])
    for gradient in gradients:
        optimizer.apply([tf.constant(gradient, tf.float32)])
    moved = numpy_adamw(weight, gradients) - weight
    np.testing.assert_allclose(variable.numpy() - weight, moved, rtol=2e-3, atol=3e-7)


def test_rows_without_a_gradient_decay_and_keep_moving() -> None:
    table = tf.Variable(np.ones((4, 2), np.float32))
    optimizer = DenseAdamW([table])
    seen = tf.constant([1, 1])
    dense = np.zeros((4, 2))
    dense[1] = 2.0  # two lookups of the row, one gradient each
    for ids, gradient in ((seen, dense), (tf.constant([2, 2]), np.roll(dense, 1, axis=0))):
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(tf.gather(table, ids))
        given = tape.gradient(value, table)
        assert isinstance(given, tf.IndexedSlices)
        np.testing.assert_array_equal(tf.convert_to_tensor(given), gradient)
        optimizer.apply([given])
    expected = numpy_adamw(np.ones((4, 2)), [dense, np.roll(dense, 1, axis=0)])
    np.testing.assert_allclose(table.numpy(), expected, atol=1e-6)
    assert table.numpy()[0, 0] < 1.0
