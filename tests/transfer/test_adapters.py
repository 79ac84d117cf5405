"""Every adapter's formula in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.transfer.adapters.adapter import Adapted, Adapter
from lfm4ads_tf.transfer.adapters.gate import GateAdapter
from lfm4ads_tf.transfer.adapters.linear import LinearAdapter
from lfm4ads_tf.transfer.adapters.mlp import MlpAdapter
from lfm4ads_tf.transfer.adapters.mlp_gate import MlpGateAdapter
from lfm4ads_tf.transfer.adapters.mlp_stack import MlpStack
from lfm4ads_tf.transfer.adapters.token import TokenAdapter
from tests.rounding import assert_close, probability_room

pytestmark = pytest.mark.processor

ROWS, WIDTH = 9, 7


def stored() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    out = {}
    for name, dim in (("UR", 4), ("CR_item@cross_1", 3)):
        present = (rng.random((ROWS, 1)) < 0.6).astype(np.float32)
        vector = rng.normal(1, 2, size=(ROWS, dim)) * present
        out[name] = np.concatenate([vector, present], axis=1).astype(np.float32)
    assert (out["UR"][:, -1] == 0).any() and (out["UR"][:, -1] == 1).any()
    return out


def run(adapter: Adapter, values: dict[str, np.ndarray]) -> Adapted:
    tensors = {n: tf.constant(v) for n, v in values.items()}
    adapter(tensors, width=WIDTH)
    rng = np.random.default_rng(1)
    for variable in adapter.trainable_variables:
        variable.assign(rng.normal(0, 0.6, variable.shape))
    return adapter(tensors, width=WIDTH)


def test_linear() -> None:
    values = stored()
    adapter = LinearAdapter(list(values), dim=5)
    adapted = run(adapter, values)
    assert adapted.gate is None and len(adapted.extra) == 2
    for k, value in enumerate(values.values()):
        kernel, bias = (w.numpy() for w in adapter.projections[k].weights)
        assert_close(
            adapted.extra[k],
            value @ kernel + bias,
            terms=6,
            magnitude=np.abs(value) @ np.abs(kernel) + np.abs(bias),
        )


def test_gate() -> None:
    values = stored()
    adapter = GateAdapter(list(values))
    adapted = run(adapter, values)
    assert adapted.extra == [] and adapted.gate.shape == (ROWS, WIDTH)
    kernel, bias = (w.numpy() for w in adapter.weights)
    joined = np.concatenate(list(values.values()), axis=1)
    logits = joined @ kernel + bias
    allowed = probability_room(joined.shape[1] + 1, np.abs(joined) @ np.abs(kernel) + np.abs(bias))
    assert np.all(np.abs(adapted.gate - 1 / (1 + np.exp(-logits))) <= allowed)


def stack_in_numpy(stack: MlpStack, value: np.ndarray) -> np.ndarray:
    gamma, beta = (w.numpy() for w in stack.norm.weights)
    vector, present = value[:, :-1], value[:, -1:]
    mean, variance = vector.mean(1, keepdims=True), vector.var(1, keepdims=True)
    x = ((vector - mean) / np.sqrt(variance + 1e-6) * gamma + beta) * present
    x = np.concatenate([x, present], axis=1)
    (w1, b1), (w2, b2) = ([w.numpy() for w in d.weights] for d in stack.denses)
    return np.maximum(x @ w1 + b1, 0) @ w2 + b2


def test_mlp() -> None:
    values = stored()
    adapter = MlpAdapter(list(values), units=[6, 5])
    adapted = run(adapter, values)
    assert adapted.gate is None and len(adapted.extra) == 2 and not adapted.tokens
    for k, value in enumerate(values.values()):
        expected = stack_in_numpy(adapter.stacks[k], value)
        assert_close(adapted.extra[k], expected, terms=24)


def test_tokens_are_fields_and_part_of_the_stream() -> None:
    values = stored()
    adapter = TokenAdapter(list(values), units=[6, 4])
    adapted = run(adapter, values)
    assert adapted.gate is None and len(adapted.tokens) == 2
    for k, value in enumerate(values.values()):
        expected = stack_in_numpy(adapter.stacks[k], value)
        assert_close(adapted.tokens[k], expected, terms=24)
        np.testing.assert_array_equal(adapted.extra[k], adapted.tokens[k])


def test_mlp_gate_starts_open_and_follows_its_formula() -> None:
    values = stored()
    adapter = MlpGateAdapter(list(values), units=[6])
    tensors = {n: tf.constant(v) for n, v in values.items()}
    np.testing.assert_array_equal(adapter(tensors, width=WIDTH).gate, np.ones((ROWS, WIDTH)))
    gate = run(adapter, values).gate
    scores = sum(
        stack_in_numpy(stack, value)
        for stack, value in zip(adapter.stacks, values.values(), strict=True)
    )
    allowed = 2 * probability_room(24, np.abs(scores).max())
    assert np.all(np.abs(gate - 2 / (1 + np.exp(-scores))) <= allowed)


def test_zero_init_gives_zeros_and_dropout_acts_in_training_alone() -> None:
    tensors = {n: tf.constant(v) for n, v in stored().items()}
    zero = MlpAdapter(list(tensors), units=[6, 5], zero_init=True)
    for part in zero(tensors, width=WIDTH).extra:
        np.testing.assert_array_equal(part, np.zeros((ROWS, 5)))
    plain = MlpAdapter(list(tensors), units=[6, 5])
    dropped = MlpAdapter(list(tensors), units=[6, 5], dropout=0.5)
    for adapter in (plain, dropped):
        adapter(tensors, width=WIDTH)
    same = zip(plain(tensors, width=WIDTH).extra, dropped(tensors, width=WIDTH).extra, strict=True)
    for a, b in same:
        np.testing.assert_array_equal(a, b)
    trained = dropped(tensors, width=WIDTH, training=True).extra[0]
    assert np.abs(trained - plain(tensors, width=WIDTH).extra[0]).max() > 1e-3


def test_rows_without_a_representation_are_treated_alike() -> None:
    values = stored()
    missing = values["UR"][:, -1] == 0
    for adapter in (LinearAdapter(["UR"], dim=5), MlpAdapter(["UR"], units=[6, 5])):
        extra = run(adapter, values).extra[0].numpy()
        assert np.ptp(extra[missing], axis=0).max() < 1e-6
        assert np.ptp(extra[~missing], axis=0).max() > 0.1
