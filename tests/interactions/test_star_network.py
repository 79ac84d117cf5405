"""Layers of shared times own weights against NumPy, and what a scenario's rows reach of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.interactions.star_network import StarNetwork
from tests.terms import Terms

pytestmark = pytest.mark.processor

S, D, UNITS, T = 3, 7, [6, 5], 2


def made(initial: bool = False) -> StarNetwork:
    layer = StarNetwork(UNITS, S, T, seed=1)
    layer((tf.zeros([1, D]), tf.zeros([1], tf.int64)))
    rng = np.random.default_rng(0)
    for variable in () if initial else layer.trainable_variables:
        variable.assign(rng.normal(0, 0.5, variable.shape))
    return layer


def rows_of(scenarios: Any) -> tuple[tf.Tensor, tf.Tensor]:
    rows = np.random.default_rng(2).normal(size=(len(scenarios), D))
    return tf.constant(rows, tf.float32), tf.constant(scenarios, tf.int64)


def of_scenario(layer: StarNetwork, read: Terms, s: int) -> list[Terms]:
    """The oracle: every layer of rows of one scenario before its relu, the logits last."""
    found = []
    for variables in layer.layers:
        kernel, own, bias, own_bias = (v.numpy().astype(np.float64) for v in variables)
        if s >= 0:
            kernel, bias = kernel * (1 + own[s]), bias + own_bias[s]
        found.append(read.affine(kernel, bias))
        read = found[-1].relu()
    return found


def test_every_row_is_multiplied_by_its_own_scenarios_weights() -> None:
    layer, (x, scenario) = made(), rows_of([2, -1, 0, 2, 0, -1, 2, 0, 0])  # none of scenario 1
    hidden, logits = layer((x, scenario))
    assert [h.shape[1] for h in hidden] == UNITS and logits.shape == (9, T)
    for s in (-1, 0, 2):
        mine = scenario.numpy() == s
        for found, expected in zip(
            [*hidden, logits], of_scenario(layer, Terms.of(x[mine]), s), strict=True
        ):
            expected.holds(found.numpy()[mine], f"scenario {s}")


def test_no_row_reaches_another_scenarios_weights() -> None:
    layer, (x, scenario) = made(), rows_of([0, 1, 2, 0, 1, -1])
    own = [v for variables in layer.layers for v in (variables[1], variables[3])]
    for s in (-1, 0, 1, 2):
        with tf.GradientTape() as tape:
            _, logits = layer((x, scenario))
            loss = tf.reduce_sum(tf.boolean_mask(tf.square(logits), scenario == s))
        for gradient in tape.gradient(loss, own):
            touched = [bool(np.any(each)) for each in gradient.numpy()]
            assert touched == [each == s for each in range(S)]  # exact zeros elsewhere


def test_all_scenarios_are_alike_at_the_start() -> None:
    layer = made(initial=True)
    x, _ = rows_of([0] * 6)
    found = [layer((x, tf.fill([6], tf.constant(s, tf.int64))))[1].numpy() for s in (-1, 0, 1, 2)]
    assert np.any(found[0])
    for each in found[1:]:
        assert np.array_equal(each, found[0])


def test_a_batch_of_no_row_has_no_output() -> None:
    hidden, logits = made()(rows_of([]))
    assert [h.shape for h in (*hidden, logits)] == [(0, 6), (0, 5), (0, T)]
