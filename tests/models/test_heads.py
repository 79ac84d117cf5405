from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.models.heads import ScenarioTaskHeads
from tests.rounding import assert_close

pytestmark = pytest.mark.processor

S, T, D = 3, 2, 5


@pytest.mark.parametrize("shared", [True, False])
def test_logits_of_the_rows_own_scenario(shared: bool) -> None:
    rng = np.random.default_rng(0)
    stream = rng.normal(size=(10, D)).astype(np.float32)
    scenario = rng.integers(-1, S, 10)
    heads = ScenarioTaskHeads(S, T, shared=shared)
    heads(tf.constant(stream), tf.constant(scenario))
    for variable in heads.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    shares = np.zeros(S)
    if not shared:
        heads.choice.rows.assign([5, 0, 2**40])
        shares = np.array([5, 0, 2**40]) / (5 + 2**40)
    found = heads(tf.constant(stream), tf.constant(scenario)).numpy()
    own_kernel, own_bias = (w.numpy() for w in heads.own.weights)
    for b in range(10):
        expected = np.zeros(T)
        for s, share in enumerate(np.eye(S)[scenario[b]] if scenario[b] >= 0 else shares):
            columns = slice(s * T, (s + 1) * T)
            expected += share * (stream[b] @ own_kernel[:, columns] + own_bias[columns])
        if shared:
            kernel, bias = (w.numpy() for w in heads.shared.weights)
            expected += stream[b] @ kernel + bias
        size = 2 * np.abs(stream[b]).sum() * np.abs(own_kernel).max() + 2 * np.abs(own_bias).max()
        assert_close(found[b], expected, terms=2 * D + 2, magnitude=size)
    assert (scenario == -1).any()


def test_own_weights_start_as_corrections_of_zero() -> None:
    stream = tf.random.stateless_normal([6, D], [1, 2])
    heads = ScenarioTaskHeads(S, T)
    logits = [heads(stream, tf.fill([6], tf.constant(s, tf.int64))) for s in range(-1, S)]
    for value in logits[1:]:
        np.testing.assert_array_equal(value, logits[0])
    assert np.abs(logits[0]).max() > 0


def test_without_scenarios_there_is_the_shared_head_alone() -> None:
    heads = ScenarioTaskHeads(0, T, shared=False)
    logits = heads(tf.ones([4, D]), tf.constant([0, 1, -1, 7], tf.int64))
    assert logits.shape == (4, T)
    assert len(heads.trainable_variables) == 2
    np.testing.assert_array_equal(logits[0], logits[3])


def test_a_scenario_moves_its_own_weights_only() -> None:
    heads = ScenarioTaskHeads(S, T, shared=False)
    heads(tf.ones([1, D]), tf.zeros([1], tf.int64))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(heads(tf.ones([3, D]), tf.constant([1, 1, 1], tf.int64)))
    kernel = tape.gradient(loss, heads.own.kernel).numpy()
    expected = np.zeros((D, S * T))
    expected[:, T : 2 * T] = 3
    np.testing.assert_array_equal(kernel, expected)


def test_a_row_of_an_unknown_scenario_moves_all_weights_by_their_shares() -> None:
    heads = ScenarioTaskHeads(S, T, shared=False)
    known = tf.constant([0, 1, 1, 1], tf.int64)
    heads(tf.ones([4, D]), known, training=True)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(heads(tf.ones([1, D]), tf.constant([-1], tf.int64), training=True))
    kernel = tape.gradient(loss, heads.own.kernel).numpy()
    np.testing.assert_array_equal(kernel, np.tile(np.repeat([0.25, 0.75, 0.0], T), (D, 1)))


@pytest.mark.parametrize("shared", [True, False])
def test_rows_of_known_scenarios_have_the_logits_of_a_plain_choice(shared: bool) -> None:
    stream, scenario = tf.random.stateless_normal([9, D], [1, 2]), tf.constant(np.arange(9) % S)
    heads = ScenarioTaskHeads(S, T, shared=shared)
    found = [heads(stream, scenario, training=training) for training in (False, True, False)]
    assert len(heads.non_trainable_variables) == int(not shared)
    every = tf.reshape(heads.own(stream), [-1, S, T])
    plain = tf.reduce_sum(every * tf.one_hot(scenario, S)[:, :, tf.newaxis], axis=1)
    if shared:
        plain += heads.shared(stream)
    for each in found:
        np.testing.assert_array_equal(each, plain)
