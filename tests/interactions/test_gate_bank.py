from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.interactions.experts import ExpertMixture
from lfm4ads_tf.interactions.gate_bank import GateBank
from tests.rounding import assert_close

pytestmark = pytest.mark.processor

B, D, H = 5, 6, 3


def drawn(*shape: int, seed: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def fill(layer: Any, seed: int = 0) -> None:
    """Random weights: zero biases would hide errors."""
    rng = np.random.default_rng(seed)
    for variable in layer.trainable_variables:
        variable.assign(rng.normal(0, 0.5, size=variable.shape))


@st.composite
def banks(draw: st.DrawFn) -> dict[str, Any]:
    """Masks, cuts, hidden units, bias, and whether each gate reads inputs of its own."""
    gates, experts = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    row = st.lists(st.booleans(), min_size=experts, max_size=experts)
    table = st.lists(row, min_size=gates, max_size=gates)
    sees = draw(st.lists(row.filter(any), min_size=gates, max_size=gates))
    return {
        "sees": sees,
        "cuts": draw(st.none() | table),
        "units": draw(st.lists(st.integers(1, 4), max_size=2)),
        "bias": draw(st.booleans()),
        "apart": draw(st.booleans()),
    }


def made(case: dict[str, Any]) -> tuple[GateBank, tf.Tensor, tf.Tensor]:
    """The bank with random weights, what its gates read, and the experts' outputs."""
    bank = GateBank(case["sees"], case["cuts"], case["units"], bias=case["bias"], seed=1)
    gates, experts = np.shape(case["sees"])
    read = tf.constant(drawn(gates, B, D) if case["apart"] else drawn(B, D))
    outputs = tf.constant(drawn(B, experts, H, seed=8))
    bank((read, outputs))
    fill(bank)
    return bank, read, outputs


def scores_of(bank: GateBank, gate: int, read: Any) -> Any:
    """Scores of the experts that a gate sees, from its own matrices; NumPy or TensorFlow."""
    relu = tf.nn.relu if isinstance(read, tf.Tensor) else lambda x: np.maximum(x, 0)
    h, counts = read, bank.mix.counts
    for k, (kernel, bias) in enumerate(bank.hidden):
        if len(kernel.shape) == 2:
            own = slice(gate * bank.units[k], (gate + 1) * bank.units[k])
            h = relu(h @ kernel.numpy()[:, own] + bias.numpy()[own])
        else:
            h = relu(h @ kernel.numpy()[gate] + bias.numpy()[gate])
    if len(bank.kernel.shape) == 2:
        own = slice(sum(counts[:gate]), sum(counts[: gate + 1]))
        kernel, bias = bank.kernel.numpy()[:, own], bank.bias
        return h @ kernel + (0 if bias is None else bias.numpy()[own])
    own = slice(0, counts[gate])
    bias = 0 if bank.bias is None else bank.bias.numpy()[gate, :, own]
    return h @ bank.kernel.numpy()[gate][:, own] + bias


@given(case=banks())
@settings(max_examples=40, deadline=None)
def test_mixtures_are_those_of_a_loop_over_gates_and_experts(case: dict[str, Any]) -> None:
    bank, read, outputs = made(case)
    found, weights = bank((read, outputs)), bank.weights_of(read).numpy()
    sees = np.array(case["sees"])
    assert weights.shape == (B, *sees.shape) and found.shape == (B, len(sees), H)
    assert not weights[:, ~sees].any()  # exactly
    for g in range(len(sees)):
        own = read.numpy()[g] if case["apart"] else read.numpy()
        scores = scores_of(bank, g, own.astype(np.float64))
        expected = np.zeros((B, sees.shape[1]))
        exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
        expected[:, sees[g]] = exponents / exponents.sum(axis=1, keepdims=True)
        # d softmax <= d scores, whose terms are those of D and the hidden units
        largest = 1 + np.abs(scores).max() + 20 * D
        assert_close(weights[:, g], expected, terms=40, magnitude=largest)
        mixed = np.einsum("be,beh->bh", expected, outputs.numpy())
        most = np.abs(outputs.numpy()).sum(axis=1)
        assert_close(found[:, g], mixed, terms=40, magnitude=largest * most)


@given(case=banks())
@settings(max_examples=40, deadline=None)
def test_cuts_change_no_value_and_keep_the_gradient_away(case: dict[str, Any]) -> None:
    bank, read, outputs = made(case)
    sees = np.array(case["sees"])
    cuts = np.zeros_like(sees) if case["cuts"] is None else np.array(case["cuts"])
    plain, _, _ = made({**case, "cuts": None})
    np.testing.assert_array_equal(bank((read, outputs)), plain((read, outputs)))
    for g in range(len(sees)):

        def gradients(of: GateBank, gate: int = g) -> list[Any]:
            with tf.GradientTape() as tape:
                tape.watch([read, outputs])
                total = tf.reduce_sum(of((read, outputs))[:, gate] * drawn(B, H, seed=9))
            return list(tape.gradient(total, [outputs, read, *of.trainable_variables]))

        (found, *others), (whole, *expected) = gradients(bank), gradients(plain)
        reached = sees[g] & ~cuts[g]
        assert not np.any(found.numpy()[:, ~reached])  # exactly
        np.testing.assert_array_equal(found.numpy()[:, reached], whole.numpy()[:, reached])
        for one, other in zip(others, expected, strict=True):  # the gate's own are all there
            np.testing.assert_array_equal(one, other)


def test_gates_without_hidden_units_beside_the_experts_are_those_of_a_bank() -> None:
    sees = [[True, False, True], [True, True, True]]
    x = tf.constant(drawn(B, D))
    for bias in (False, True):
        mixture = ExpertMixture(3, [4, H], 2, sees=sees, gate_bias=bias, seed=1)
        mixture(x)
        fill(mixture)
        bank = GateBank(sees, bias=bias, seed=1)
        outputs, weights = mixture.outputs_and_gates(x)
        bank((x, outputs))
        bank.kernel.assign(mixture.kernel[:, 3 * 4 :])
        if bias:
            bank.bias.assign(mixture.gate_bias)
        assert_close(bank.weights_of(x), weights, terms=4 * D)
        assert_close(mixture(x), bank((x, outputs)), terms=4 * D)
        assert not weights.numpy()[:, 0, 1].any()


def test_gates_with_hidden_units_are_a_bank_of_the_mixture() -> None:
    x = tf.constant(drawn(B, D))
    mixture = ExpertMixture(3, [4, H], 2, gate_units=[5, 2], gate_bias=True, seed=1)
    mixture(x)
    fill(mixture)
    assert mixture.kernel.shape == (D, 3 * 4)
    assert all("experts/experts_gates/" in v.name for v in mixture.gates.trainable_variables)
    outputs, weights = mixture.outputs_and_gates(x)
    np.testing.assert_array_equal(weights, mixture.gates.weights_of(x))
    assert_close(mixture(x), np.einsum("bte,beh->bth", weights, outputs), terms=3)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(mixture(x) * drawn(B, 2, H, seed=9))
    gradients = tape.gradient(total, mixture.trainable_variables)
    assert all(gradient is not None and np.any(gradient) for gradient in gradients)


@pytest.mark.parametrize("units", [[], [4]])
@pytest.mark.parametrize("apart", [False, True])
def test_every_gate_starts_at_values_of_its_own(units: list[int], apart: bool) -> None:
    def scores(gates: int) -> np.ndarray:
        bank = GateBank([[True, True]] * gates, units=units, seed=1)
        read = np.broadcast_to(drawn(B, D), (gates, B, D)) if apart else drawn(B, D)
        bank((tf.constant(read), tf.constant(drawn(B, 2, H, seed=8))))
        return bank.weights_of(tf.constant(read)).numpy()  # (B, G, 2)

    two, three = scores(2), scores(3)
    assert not np.allclose(two[:, 0], two[:, 1])
    assert_close(three[:, :2], two, terms=4 * D, magnitude=10.0)  # one more leaves the others


@pytest.mark.parametrize(
    ("sees", "cuts", "message"),
    [
        ([[True, False], [False, False]], None, "needs an expert"),
        ([[True, False]], [[True]], "cannot cut"),
    ],
)
def test_what_cannot_be_mixed_is_refused(sees: Any, cuts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GateBank(sees, cuts)


def test_cuts_are_part_of_the_configuration() -> None:
    bank = GateBank([[True, True]], [[False, True]], [3], bias=True, seed=2)
    rebuilt = GateBank.from_config(json.loads(json.dumps(bank.get_config())))
    assert rebuilt.arguments["cuts"] == [[False, True]]
    read, outputs = tf.constant(drawn(B, D)), tf.constant(drawn(B, 2, H, seed=8))
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        total = tf.reduce_sum(rebuilt((read, outputs)))
    np.testing.assert_array_equal(rebuilt((read, outputs)), bank((read, outputs)))
    assert not np.any(tape.gradient(total, outputs)[:, 1])
