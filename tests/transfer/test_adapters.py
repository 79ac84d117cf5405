"""Every adapter's formula in NumPy."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from lfm4ads_tf.transfer.adapter import Adapted, Adapter
from lfm4ads_tf.transfer.gate import GateAdapter
from lfm4ads_tf.transfer.linear import LinearAdapter
from lfm4ads_tf.transfer.mlp import MlpAdapter

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
        np.testing.assert_allclose(adapted.extra[k], value @ kernel + bias, atol=1e-5)


def test_gate() -> None:
    values = stored()
    adapter = GateAdapter(list(values))
    adapted = run(adapter, values)
    assert adapted.extra == [] and adapted.gate.shape == (ROWS, WIDTH)
    kernel, bias = (w.numpy() for w in adapter.weights)
    joined = np.concatenate(list(values.values()), axis=1)
    np.testing.assert_allclose(adapted.gate, 1 / (1 + np.exp(-(joined @ kernel + bias))), atol=1e-6)


def test_mlp() -> None:
    values = stored()
    adapter = MlpAdapter(list(values), units=[6, 5])
    adapted = run(adapter, values)
    assert adapted.gate is None and len(adapted.extra) == 2
    for k, value in enumerate(values.values()):
        gamma, beta = (w.numpy() for w in adapter.norms[k].weights)
        vector, present = value[:, :-1], value[:, -1:]
        mean, variance = vector.mean(1, keepdims=True), vector.var(1, keepdims=True)
        x = ((vector - mean) / np.sqrt(variance + 1e-6) * gamma + beta) * present
        x = np.concatenate([x, present], axis=1)
        (w1, b1), (w2, b2) = ([w.numpy() for w in d.weights] for d in adapter.stacks[k])
        expected = np.maximum(x @ w1 + b1, 0) @ w2 + b2
        np.testing.assert_allclose(adapted.extra[k], expected, atol=1e-4)


def test_rows_without_a_representation_are_treated_alike() -> None:
    values = stored()
    missing = values["UR"][:, -1] == 0
    for adapter in (LinearAdapter(["UR"], dim=5), MlpAdapter(["UR"], units=[6, 5])):
        extra = run(adapter, values).extra[0].numpy()
        assert np.ptp(extra[missing], axis=0).max() < 1e-6
        assert np.ptp(extra[~missing], axis=0).max() > 0.1
