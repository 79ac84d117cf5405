"""The choice of scenarios' logits and the count behind it, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.interactions.scenario_choice import ScenarioChoice

pytestmark = pytest.mark.processor

S = 3


def chosen(layer: ScenarioChoice, scenarios: Any, training: bool = False) -> np.ndarray:
    return layer(tf.constant(scenarios, tf.int64), training=training).numpy()


def expected(scenarios: Any, rows: np.ndarray) -> np.ndarray:
    """In float64, rounded once to float32."""
    shares = rows / rows.sum() if rows.sum() else np.full(S, 1 / S)
    return np.stack([np.eye(S)[s] if s >= 0 else shares for s in scenarios]).astype(np.float32)


@given(st.lists(st.lists(st.integers(-1, S - 1), min_size=1, max_size=6), max_size=4))
@settings(max_examples=20, deadline=None)
def test_steps_count_rows_of_known_scenarios_and_unknown_ones_get_the_shares(
    steps: list[list[int]],
) -> None:
    layer, rows = ScenarioChoice(S), np.zeros(S, np.int64)
    probe = [-1, 0, 1, 2]
    np.testing.assert_array_equal(chosen(layer, probe), expected(probe, rows))
    for scenarios in steps:
        rows += np.bincount([s for s in scenarios if s >= 0], minlength=S)
        np.testing.assert_array_equal(
            chosen(layer, scenarios, training=True), expected(scenarios, rows)
        )
        np.testing.assert_array_equal(chosen(layer, probe), expected(probe, rows))
        np.testing.assert_array_equal(layer.rows, rows)


def test_a_count_of_billions_is_exact() -> None:
    layer = ScenarioChoice(S)
    chosen(layer, [0])
    rows = np.array([2**24, 2**53, 7 * 10**12])
    layer.rows.assign(rows)
    for _ in range(3):
        chosen(layer, [0, 1, 2, 2, -1], training=True)
    np.testing.assert_array_equal(layer.rows, rows + 3 * np.array([1, 1, 2]))
    np.testing.assert_array_equal(chosen(layer, [-1]), expected([-1], layer.rows.numpy()))


def test_a_traced_step_of_any_size_counts_once() -> None:
    layer = ScenarioChoice(S)
    chosen(layer, [0])
    step = tf.function(
        lambda scenario: layer(scenario, training=True),
        input_signature=[tf.TensorSpec([None], tf.int64)],
    )
    scenarios = [0, 0, 2, -1]
    found = step(tf.constant(scenarios, tf.int64))
    np.testing.assert_array_equal(found, expected(scenarios, np.array([2, 0, 1])))
    assert step(tf.zeros([0], tf.int64)).shape == (0, S)
    np.testing.assert_array_equal(layer.rows, [2, 0, 1])


def test_a_layer_that_is_not_trained_counts_nothing() -> None:
    layer = ScenarioChoice(S)
    chosen(layer, [0, 1], training=True)
    layer.trainable = False
    chosen(layer, [2, 2], training=True)
    np.testing.assert_array_equal(layer.rows, [1, 1, 0])


@pytest.mark.parametrize("scenarios", [0, S])
def test_a_shared_logit_is_every_rows_and_nothing_is_counted(scenarios: int) -> None:
    layer = ScenarioChoice(scenarios, shared=True)
    found = chosen(layer, [-1, 0, 2], training=True)
    own = np.eye(S + 1)[[S, 0, 2], :scenarios]
    np.testing.assert_array_equal(found, np.concatenate([np.ones((3, 1)), own], axis=1))
    assert not layer.variables


def test_files_keep_the_count_and_older_ones_leave_all_alike(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def made() -> tf_keras.Model:
        scenario = tf_keras.Input([], dtype=tf.int64)
        return tf_keras.Model(scenario, ScenarioChoice(S)(scenario))

    model = made()
    rows = model.layers[-1].rows
    rows.assign([2**40, 1, 2])
    model.save(tmp_path / "model.keras")
    loaded = tf_keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.layers[-1].rows, rows)
    assert not caplog.records
    loaded.layers[-1].load_own_variables({})  # what a file without the layer gives it
    np.testing.assert_array_equal(loaded(tf.constant([-1], tf.int64)), expected([-1], np.zeros(S)))
    assert "each alike" in caplog.text
