"""What rounding is said to allow, against sums in another order and in more digits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.export.rounding import Change, Rounding, rounding_bound, score_limit

pytestmark = pytest.mark.processor

EPS = float(np.finfo(np.float32).eps)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 1000),
    st.sampled_from([3, 64, 500]),  # twice as many where they cancel: 1,000 are what is claimed
    st.floats(-3, 3),
    st.booleans(),
)
def test_a_sum_in_any_order_is_within_the_bound(
    seed: int, terms: int, scale: float, cancels: bool
) -> None:
    rng = np.random.default_rng(seed)
    weights = (rng.normal(size=terms) * 10.0**scale).astype(np.float32)
    inputs = rng.normal(size=(7, terms)).astype(np.float32)
    if cancels:  # the sum is far below its terms
        weights = np.concatenate([weights, -weights])
        inputs = np.concatenate([inputs, inputs * np.float32(1.001)], axis=1)
    variable = tf.Variable(weights)

    def outputs(change: Change) -> np.ndarray:
        return np.asarray(change(inputs).astype(np.float64) @ variable.numpy().astype(np.float64))

    bound = rounding_bound(outputs, [variable])
    np.testing.assert_array_equal(variable.numpy(), weights)
    exact = inputs.astype(np.float64) @ weights.astype(np.float64)
    products = inputs * weights  # float32
    for order in (np.arange(len(weights)), rng.permutation(len(weights))):
        one_by_one = np.cumsum(products[:, order], axis=1, dtype=np.float32)[:, -1]
        assert (np.abs(one_by_one - exact) <= Rounding("value", bound).allowed(exact)).all()
    # and no looser than a small multiple of the terms' magnitudes, summed as roots of squares
    spread = np.sqrt((products.astype(np.float64) ** 2).sum(axis=1)).max()
    assert bound <= 4 * 32 * EPS * spread


def test_a_model_in_float64_is_within_the_bound_of_the_one_in_float32() -> None:
    """Three layers; one weight that changes by 1 % is far outside of it."""
    layers = [
        tf_keras.layers.Dense(
            units,
            activation=activation,
            kernel_initializer=tf_keras.initializers.GlorotUniform(seed=units),
        )
        for units, activation in ((64, "relu"), (32, "relu"), (1, None))
    ]
    model = tf_keras.Sequential(layers)
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(200, 300)).astype(np.float32)
    model(inputs)

    def outputs(change: Change) -> np.ndarray:
        return np.asarray(model(change(inputs)).numpy())

    bound = rounding_bound(outputs, model.variables)
    stream = inputs.astype(np.float64)
    for layer in layers:
        kernel, bias = (v.numpy().astype(np.float64) for v in layer.variables)
        stream = stream @ kernel + bias
        stream = stream if layer is layers[-1] else np.maximum(stream, 0)
    off = np.abs(model(inputs).numpy() - stream).max()
    assert EPS * np.abs(stream).max() / 8 < off <= bound
    kernel = layers[0].kernel.numpy()
    kernel[np.unravel_index(np.abs(kernel).argmax(), kernel.shape)] *= 1.01
    layers[0].kernel.assign(kernel)
    assert np.abs(model(inputs).numpy() - stream).max() > 3 * bound


def test_embedded_values_count_as_terms() -> None:
    class Table(tf_keras.layers.Layer):  # type: ignore[misc]
        def call(self, ids: Any) -> dict[int, tf.Tensor]:
            return {2: tf.gather(tf.constant([[3.0, 4.0], [0.0, 0.0]]), ids)}

    table = Table()

    def outputs(change: Change) -> np.ndarray:
        return np.asarray(tf.reduce_sum(table(tf.constant([0, 1]))[2], axis=1).numpy())

    bound = rounding_bound(outputs, [], [table])
    # each draw gives +-3 +-4, that is 7 or 1
    assert 32 * EPS * 1 * 0.99 <= bound <= 32 * EPS * 7 * 1.01
    assert "call" not in vars(table) and outputs(lambda v: v).tolist() == [7.0, 0.0]


def test_weights_are_as_before_when_the_model_fails() -> None:
    variable = tf.Variable([1.0, 2.0])
    calls = []

    def outputs(change: Change) -> np.ndarray:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("no memory")
        return np.asarray(variable.numpy())

    with pytest.raises(RuntimeError, match="no memory"):
        rounding_bound(outputs, [variable])
    assert variable.numpy().tolist() == [1.0, 2.0]


@pytest.mark.parametrize(("tolerance", "most"), [(0.0, 1e-6), (5e-4, 6e-4), (2e-2, 2.3e-2)])
def test_smaller_tables_allow_more_of_a_score(tolerance: float, most: float) -> None:
    contract = {"tolerance": tolerance, "rounding": {"click": {"of": "logit", "bound": 2e-6}}}
    p = np.array([0.5, 0.01, 0.999], np.float32)
    limit = score_limit(contract, "click", p)
    assert (limit >= 4 * tolerance * p * (1 - p)).all() and limit.argmax() == 0
    assert tolerance <= limit.max() <= most
