"""Normalisation by scenario against NumPy, in training, at inference and over several steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.interactions.partitioned_norm import PartitionedNorm
from tests.terms import Terms

pytestmark = pytest.mark.processor

S, D, M = 3, 5, 0.9
EPSILON = 1e-5
KEPT = ("moving_rows", "moving_mean", "moving_variance")


def made(dtype: str = "float32") -> PartitionedNorm:
    config = PartitionedNorm(S, momentum=M).get_config()
    layer = PartitionedNorm.from_config({**config, "dtype": dtype})
    layer((tf.zeros([1, D], dtype), tf.zeros([1], tf.int64)))
    rng = np.random.default_rng(0)
    for variable in layer.trainable_variables:
        variable.assign(rng.normal(0, 0.5, variable.shape))
    return layer


def rows_of(scenarios: Any, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows far from 0 and narrow: a second moment less a squared mean would lose them."""
    scenario = np.asarray(scenarios, np.int64)
    rng = np.random.default_rng(seed)
    centre = np.array([3.0, -40.0, 8.0, 1.0])[scenario]
    return rng.normal(centre[:, None], 0.5, (len(scenario), D)).astype(np.float32), scenario


def moments(z: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    numbers = z.astype(np.float64)
    return len(z), numbers.mean(axis=0), numbers.var(axis=0)


def normed(layer: PartitionedNorm, z: np.ndarray, scenario: np.ndarray, of: Any) -> Terms:
    """The oracle; `of(s)` are mean and variance of a row of scenario s."""
    g, b, own_g, own_b = (
        v.numpy().astype(np.float64)
        for v in (layer.scale, layer.bias, layer.own_scale, layer.own_bias)
    )
    rows = []
    for row, s in zip(z.astype(np.float64), scenario, strict=True):
        mean, variance = of(s)
        factor = (1 + g) * (1 + own_g[s] if s >= 0 else 1) / np.sqrt(variance + EPSILON)
        bias = b + (own_b[s] if s >= 0 else 0)
        size = (np.abs(row) + np.abs(mean)) * np.abs(factor) + np.abs(bias)
        rows.append(((row - mean) * factor + bias, size))
    return Terms(*(np.stack(each) for each in zip(*rows, strict=True)))


def run(layer: PartitionedNorm, z: np.ndarray, scenario: np.ndarray, training: bool) -> Any:
    return layer((tf.constant(z), tf.constant(scenario)), training=training).numpy()


def test_training_normalises_by_the_batchs_rows_of_a_scenario_or_by_all() -> None:
    """Scenario 1 has one row and scenario 2 none; two rows have no scenario."""
    layer, (z, scenario) = made(), rows_of([0, -1, 0, 1, 0, -1, 0])
    own, every = moments(z[scenario == 0]), moments(z)
    expected = normed(layer, z, scenario, lambda s: (own if s == 0 else every)[1:])
    expected.holds(run(layer, z, scenario, training=True))


class Moving:
    """The moving statistics in float64: a plain weighted mean and variance of all rows so far."""

    def __init__(self) -> None:
        self.values: list[np.ndarray] = []
        self.weights: list[float] = []

    def add(self, z: np.ndarray) -> None:
        if len(z):
            self.weights = [M * w for w in self.weights] + [1.0] * len(z)
            self.values += list(z.astype(np.float64))

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        z, w = np.array(self.values), np.array(self.weights)[:, None]
        mean = (w * z).sum(axis=0) / w.sum()
        return mean, (w * (z - mean) ** 2).sum(axis=0) / w.sum()


def test_moving_statistics_are_those_of_the_discounted_rows() -> None:
    layer = made()
    moving = [Moving() for _ in range(S + 1)]
    batches = [[0, 0, -1, 0], [1, 0, 0], [0, 2, 2, 2], [1], [-1, -1], [2, 0]]
    for k, scenarios in enumerate(batches):
        z, scenario = rows_of(scenarios, seed=k)
        before = {name: getattr(layer, name).numpy() for name in KEPT}
        run(layer, z, scenario, training=True)
        for s in range(S):
            moving[s].add(z[scenario == s])
            if s not in scenarios:  # bit by bit
                for name, value in before.items():
                    assert np.array_equal(getattr(layer, name)[s], value[s]), (name, k, s)
        moving[S].add(z)
    for s, each in enumerate(moving):
        mean, variance = each.statistics()
        assert layer.moving_rows[s, 0].numpy() == pytest.approx(sum(each.weights), rel=1e-6)
        size = np.abs(each.values).max(axis=0)
        Terms(mean, size).holds(layer.moving_mean[s], f"mean {s}")
        # each row's difference from the mean is rounded as its value is
        Terms(variance, variance + 2 * size * np.sqrt(variance)).holds(layer.moving_variance[s])
    z, scenario = rows_of([-1, 0, 1, 2, 0, 2], seed=9)
    stored = layer.moving_mean.numpy(), layer.moving_variance.numpy()
    expected = normed(layer, z, scenario, lambda s: [each[s] for each in stored])
    expected.holds(run(layer, z, scenario, training=False))


def test_a_scenario_of_one_row_so_far_is_normalised_as_all_rows_are() -> None:
    layer, (z, scenario) = made(), rows_of([0, 0, 0, 1])
    run(layer, z, scenario, training=True)
    every = moments(z)
    held = rows_of([1, 2, 0], seed=1)
    of = {1: every[1:], 2: every[1:], 0: moments(z[:3])[1:]}
    normed(layer, *held, lambda s: of[s]).holds(run(layer, *held, training=False))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(-1, S - 1), max_size=5), max_size=4))
def test_any_batches_leave_finite_statistics_and_outputs(batches: list[list[int]]) -> None:
    layer = made()
    for k, scenarios in enumerate(batches):
        assert np.isfinite(run(layer, *rows_of(scenarios, seed=k), training=True)).all()
        for name in KEPT:
            assert np.isfinite(getattr(layer, name)).all(), name
        assert (layer.moving_variance.numpy() >= 0).all()
    assert np.isfinite(run(layer, *rows_of([-1, 0, 1, 2]), training=False)).all()


def test_inference_and_a_layer_that_is_not_trained_move_nothing() -> None:
    layer, batch = made(), rows_of([0, 0, 1, 1])
    run(layer, *batch, training=True)
    before, expected = layer.get_weights(), run(layer, *batch, training=False)
    layer.trainable = False
    assert np.array_equal(run(layer, *batch, training=True), expected)
    assert all(np.array_equal(a, b) for a, b in zip(before, layer.get_weights(), strict=True))


def test_gradients_in_training_flow_through_the_batchs_statistics() -> None:
    """Against central differences in float64: of the rows and of every weight."""
    layer = made("float64")
    z, scenario = rows_of([0, 0, 0, -1, 1, 2, 2])
    factors = np.random.default_rng(5).normal(size=z.shape)
    start = z.astype(np.float64)

    def loss(values: Any) -> Any:
        return tf.reduce_sum(factors * layer((values, tf.constant(scenario)), training=True))

    with tf.GradientTape() as tape:
        rows = tf.constant(start)
        tape.watch(rows)
        total = loss(rows)
    of_rows, *of_weights = tape.gradient(total, [rows, *layer.trainable_variables])
    rng, step = np.random.default_rng(6), 2.0**-14
    along = rng.normal(size=start.shape)
    slope = float((of_rows.numpy() * along).sum())
    ends = [float(loss(tf.constant(start + way * step * along))) for way in (1, -1)]
    size = float(np.abs(of_rows.numpy() * along).sum())
    assert abs((ends[0] - ends[1]) / (2 * step) - slope) <= 1e-5 * size
    for gradient, variable in zip(of_weights, layer.trainable_variables, strict=True):
        along, value = rng.normal(size=variable.shape), variable.numpy()
        ends = []
        for way in (1, -1):
            variable.assign(value + way * step * along)
            ends.append(float(loss(tf.constant(start))))
        variable.assign(value)
        terms = gradient.numpy() * along
        found = (ends[0] - ends[1]) / (2 * step)
        assert abs(found - terms.sum()) <= 1e-5 * np.abs(terms).sum(), variable.name
