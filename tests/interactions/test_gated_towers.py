"""Gates, towers that they multiply, and vectors of scenarios, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.interactions.gate_unit import GateUnit
from lfm4ads_tf.interactions.gated_towers import GatedTowers
from lfm4ads_tf.interactions.scenario_embedding import ScenarioEmbedding
from tests.terms import Terms

pytestmark = pytest.mark.processor

B, D, V, T, UNITS = 9, 6, 8, 3, [5, 4]


def numbers(width: int, seed: int) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).normal(size=(B, width)), tf.float32)


def gate_of(gate: GateUnit, read: Terms) -> Terms:
    """2 sigmoid(W_2 relu(W_1 v + b_1) + b_2) in float64."""
    hidden = read.affine(*(v.numpy() for v in gate.hidden.weights)).relu()
    return hidden.affine(*(v.numpy() for v in gate.scores.weights)).gate()


def fill(layer: tf.Module) -> None:
    rng = np.random.default_rng(0)
    for variable in layer.trainable_variables:
        variable.assign(rng.normal(0, 0.5, variable.shape))


def test_a_gates_factors() -> None:
    gate, read = GateUnit(4, 3, seed=1), numbers(V, 1)
    gate(read)
    fill(gate)
    found = gate(read).numpy()
    gate_of(gate, Terms.of(read)).holds(found)
    assert (found > 0).all() and (found < 2).all()


def test_every_layer_of_every_tower_is_multiplied_by_its_part_of_the_layers_gate() -> None:
    layer, x, v = GatedTowers(UNITS, T, gate_units=4, seed=1), numbers(D, 1), numbers(V, 2)
    layer((x, v))
    fill(layer)
    hidden, logits = layer((x, v))
    trained, _ = layer((x, v), training=True)
    assert [h.shape for h in hidden] == [(B, T, 5), (B, T, 4)] and logits.shape == (B, T)
    for t in range(T):
        read = Terms.of(x)
        for k, (width, gate) in enumerate(zip(UNITS, layer.gates, strict=True)):
            kernel, bias = (each.numpy() for each in layer.layers[k])
            own = slice(t * width, (t + 1) * width)
            kernel, bias = (kernel[:, own], bias[own]) if k == 0 else (kernel[t], bias[t, 0])
            of_layer = gate_of(gate, Terms.of(v))
            factors = Terms(of_layer.value[:, own], of_layer.size[:, own])
            before = read.affine(kernel, bias) * factors
            before.holds(hidden[k][:, t], f"layer {k} of task {t}")
            before.holds(trained[k][:, t], f"layer {k} of task {t} in training")
            read = read.affine(kernel, bias).relu() * factors
            assert np.array_equal(read.value, before.relu().value)
        logit = read.affine(layer.logit_kernel.numpy()[t], layer.logit_bias.numpy()[t, 0])
        logit.holds(logits[:, t : t + 1], f"logit of task {t}")


def test_an_unknown_scenario_has_the_last_vector_or_zeros() -> None:
    scenario = tf.constant([1, -1, 0, 1], tf.int64)
    for unknown in (True, False):
        layer = ScenarioEmbedding(2, 3, unknown=unknown, seed=4)
        layer(scenario)
        assert (layer.table.numpy()[:2] != 0).all() and not layer.table.numpy()[2:].any()
        fill(layer)
        table = layer.table.numpy()
        assert table.shape == (2 + unknown, 3)
        expected = table[[1, -1, 0, 1]]
        expected[1] *= unknown
        assert np.array_equal(layer(scenario), expected)
    more = ScenarioEmbedding(5, 3, seed=4)
    more(scenario)
    fewer = ScenarioEmbedding(2, 3, seed=4)
    fewer(scenario)
    assert np.array_equal(more.table[:2], fewer.table[:2])  # as it was, with further scenarios
