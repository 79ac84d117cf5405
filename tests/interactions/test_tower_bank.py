from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.interactions.tower_bank import TowerBank, Towers
from lfm4ads_tf.models.task_towers import TaskTowers
from tests.rounding import assert_close

pytestmark = pytest.mark.processor

B, H = 6, 4
of_kinds = pytest.mark.parametrize("per", ["task", "scenario", "both"])


def drawn(*shape: int) -> tf.Tensor:
    return tf.constant(np.random.default_rng(7).normal(size=shape), tf.float32)


def fill(layer: TowerBank) -> None:
    """Random weights: zero biases would hide errors."""
    rng = np.random.default_rng(0)
    for variable in layer.trainable_variables:
        variable.assign(rng.normal(0, 0.5, size=variable.shape))


def oracle(
    bank: TowerBank, read: np.ndarray, scenario: np.ndarray, shares: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Logits (B, T) row by row and task by task, and the sums of their terms' magnitudes.

    `shares` (S,) are those of the scenarios where no logit is shared.
    """
    first = int(bank.shared)
    found = np.zeros((len(read), bank.tasks))
    magnitude = np.zeros_like(found)
    for b, s in enumerate(scenario):
        chosen = {0: 1.0} if bank.shared else dict(enumerate(shares)) if s < 0 else {}
        chosen |= {first + int(s): 1.0} if s >= 0 else {}
        for t in range(bank.tasks):
            for c, share in chosen.items():
                g = {"task": t, "scenario": c, "both": c * bank.tasks + t}[bank.per]
                place = {"task": c, "scenario": t, "both": 0}[bank.per]
                given = read.shape[1]
                own = {1: 0, bank.towers: g}.get(given, t)
                h = read[b, own].astype(np.float64)
                m = np.abs(h)
                for kernel, bias in bank.layers:
                    h = np.maximum(h @ kernel.numpy()[g] + bias.numpy()[g, 0], 0)
                    m = m @ np.abs(kernel.numpy()[g]) + np.abs(bias.numpy()[g, 0])
                kernel, bias = bank.logit_kernel.numpy()[g], bank.logit_bias.numpy()[g, 0]
                found[b, t] += share * (h @ kernel[:, place] + bias[place])
                magnitude[b, t] += share * (m @ np.abs(kernel[:, place]) + np.abs(bias[place]))
    return found, magnitude


@given(
    per=st.sampled_from(["task", "scenario", "both"]),
    units=st.lists(st.integers(1, 5), max_size=2),
    scenarios=st.integers(0, 3),
    tasks=st.integers(1, 3),
    shared=st.booleans(),
    reads=st.sampled_from(["one", "task", "each"]),
)
@settings(max_examples=60, deadline=None)
def test_logits_are_those_of_each_rows_own_towers(
    per: Towers, units: list[int], scenarios: int, tasks: int, shared: bool, reads: str
) -> None:
    bank = TowerBank(units, scenarios, tasks, per=per, shared=shared, seed=1)
    inputs = {"one": 1, "each": bank.towers, "task": tasks if per == "both" else 1}[reads]
    read = drawn(B, inputs, H)
    scenario = tf.constant(np.arange(B) % (scenarios + 1) - 1, tf.int64)
    bank(read, scenario)
    fill(bank)
    rows = np.arange(1, scenarios + 1)
    if not bank.shared:
        bank.choice.rows.assign(rows)
    expected, magnitude = oracle(bank, read.numpy(), scenario.numpy(), rows / max(rows.sum(), 1))
    found = bank(read, scenario)
    assert found.shape == (B, tasks)
    # a share is rounded, and so are its product and the sum over the scenarios
    assert_close(found, expected, terms=H + sum(units) + 4 + scenarios, magnitude=magnitude)


@of_kinds
def test_scenarios_start_as_corrections_of_zero(per: Towers) -> None:
    bank, read = TowerBank([3], 3, 2, per=per, seed=1), drawn(B, 1, H)
    scores = [bank(read, tf.fill([B], tf.constant(s, tf.int64))) for s in (-1, 0, 2)]
    assert np.any(scores[0])
    for score in scores[1:]:
        np.testing.assert_array_equal(score, scores[0])


@of_kinds
def test_without_a_shared_logit_scenarios_have_their_own(per: Towers) -> None:
    bank, read = TowerBank([3], 3, 2, per=per, shared=False, seed=1), drawn(B, 1, H)
    scores = [bank(read, tf.fill([B], tf.constant(s, tf.int64))) for s in (0, 1, 2)]
    assert np.any(scores[0]) and not np.allclose(scores[0], scores[2])


@of_kinds
@pytest.mark.parametrize("shared", [False, True])
def test_rows_of_known_scenarios_are_chosen_by_ones_and_zeros(per: Towers, shared: bool) -> None:
    """Bit by bit, whatever was counted: with the choice that was made before rows were counted."""
    bank, read = TowerBank([3], 3, 2, per=per, shared=shared, seed=1), drawn(B, 1, H)
    scenario = tf.constant(np.arange(B) % 3 - int(shared), tf.int64)
    bank(read, scenario)
    fill(bank)
    found = [bank(read, scenario, training=training) for training in (False, True, False)]
    assert len(bank.non_trainable_variables) == int(not shared)
    plain = tf.one_hot(scenario, 3)
    plain = tf.concat([tf.ones([B, 1]), plain], axis=-1) if shared else plain
    bank.choice = lambda scenario, training: plain
    for each in found:
        np.testing.assert_array_equal(each, bank(read, scenario))


@pytest.mark.parametrize("per", ["scenario", "both"])
def test_a_row_moves_the_towers_of_its_scenario_and_the_shared_one(per: Towers) -> None:
    bank, read = TowerBank([3], 3, 2, per=per, seed=1), drawn(B, 1, H)
    scenario = tf.fill([B], tf.constant(1, tf.int64))
    bank(read, scenario)
    fill(bank)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(bank(read, scenario)[:, 0])
    kernels, logits = tape.gradient(total, [bank.layers[0][0], bank.logit_kernel])
    moved = {0, 2} if per == "scenario" else {0, 4}  # of task 0
    for gradient in (kernels, logits):
        assert {g for g in range(bank.towers) if np.any(gradient[g])} == moved


def test_task_towers_are_a_bank_of_towers_per_task() -> None:
    towers, bank = TaskTowers([3], 3, 2, seed=1), TowerBank([3], 3, 2, seed=1, name="task_towers")
    scenario = tf.constant(np.arange(B) % 4 - 1, tf.int64)
    mixed = drawn(B, 2 * H)
    np.testing.assert_array_equal(
        towers(mixed, scenario), bank(tf.reshape(mixed, [B, 2, H]), scenario)
    )
    for one, other in zip(towers.weights, bank.weights, strict=True):
        assert one.name == other.name
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("per", "inputs"), [("task", 3), ("scenario", 2), ("both", 3)])
def test_inputs_that_no_tower_is_for_are_refused(per: Towers, inputs: int) -> None:
    with pytest.raises(ValueError, match="cannot read"):
        TowerBank([3], 3, 2, per=per)(drawn(B, inputs, H), tf.zeros([B], tf.int64))
