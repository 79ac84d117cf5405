from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from lfm4ads_tf.interactions.experts import ExpertMixture
from tests.rounding import assert_close

pytestmark = pytest.mark.processor

B, D, E, T = 7, 6, 3, 2


def filled(units: list[int], *, experts: int = E, tasks: int = T, seed: int = 0) -> ExpertMixture:
    """A mixture with random weights: zero biases would hide errors."""
    layer = ExpertMixture(experts, units, tasks, seed=1)
    layer(tf.zeros([1, D]))
    rng = np.random.default_rng(seed)
    for variable in layer.trainable_variables:
        variable.assign(rng.normal(0, 0.5, size=variable.shape))
    return layer


def drawn(rows: int = B) -> np.ndarray:
    return np.random.default_rng(7).normal(size=(rows, D)).astype(np.float32)


def unfused(layer: ExpertMixture) -> tuple[list[list[tuple[Any, Any]]], list[Any]]:
    """Kernel and bias of every expert's every layer, and every gate's kernel."""
    first, kernel, bias = layer.units[0], layer.kernel.numpy(), layer.bias.numpy()
    experts = []
    for e in range(layer.experts):
        own = slice(e * first, (e + 1) * first)
        deeper = [(k.numpy()[e], b.numpy()[e, 0]) for k, b in layer.deeper]
        experts.append([(kernel[:, own], bias[own]), *deeper])
    start = layer.experts * first
    gates = [
        kernel[:, start + t * layer.experts : start + (t + 1) * layer.experts]
        for t in range(layer.tasks)
    ]
    return experts, gates


@pytest.mark.parametrize("units", [[5], [5, 4], [5, 4, 3]])
def test_mixture_is_the_loop_over_experts_and_tasks(units: list[int]) -> None:
    layer, x = filled(units), drawn()
    experts, gates = unfused(layer)
    outputs = []
    for expert in experts:
        h = x
        for kernel, bias in expert:
            h = np.maximum(h @ kernel + bias, 0)
        outputs.append(h)
    expected = np.zeros((B, T, units[-1]))
    for t, gate in enumerate(gates):
        for b in range(B):
            weights = np.exp(x[b] @ gate)
            weights /= weights.sum()
            for e in range(E):
                expected[b, t] += weights[e] * outputs[e][b]
    found = layer(tf.constant(x))
    assert found.shape == (B, T, units[-1])
    assert_close(found, expected, terms=24)
    assert_close(layer.outputs_and_gates(x)[0], np.stack(outputs, axis=1), terms=24)


def test_gates_are_distributions_over_the_experts() -> None:
    _, gates = filled([4]).outputs_and_gates(100 * drawn())
    assert gates.shape == (B, T, E)
    assert float(tf.reduce_min(gates)) >= 0
    np.testing.assert_allclose(tf.reduce_sum(gates, axis=-1), np.ones((B, T)), atol=1e-6)
    assert not np.allclose(gates[:, 0], gates[:, 1])


def test_gradients_are_those_of_the_unfused_loop() -> None:
    layer, x = filled([5, 4]), tf.constant(drawn())
    expert_weights, gate_kernels = unfused(layer)
    experts = [[(tf.Variable(k), tf.Variable(b)) for k, b in e] for e in expert_weights]
    gates = [tf.Variable(g) for g in gate_kernels]
    target = tf.random.stateless_normal([B, T, 4], [3, 4])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        outputs = []
        for expert in experts:
            h = x
            for kernel, bias in expert:
                h = tf.nn.relu(tf.matmul(h, kernel) + bias)
            outputs.append(h)
        mixed = [
            tf.add_n([tf.nn.softmax(x @ g)[:, e, tf.newaxis] * outputs[e] for e in range(E)])
            for g in gates
        ]
        reference = tf.reduce_sum(tf.stack(mixed, axis=1) * target)
        fused = tf.reduce_sum(layer(x) * target)
    assert_close(fused, reference, terms=24)
    assert_close(tape.gradient(fused, x), tape.gradient(reference, x), terms=24)
    first = [tape.gradient(reference, e[0][0]) for e in experts]
    by_gate = [tape.gradient(reference, g) for g in gates]
    assert_close(
        tape.gradient(fused, layer.kernel), tf.concat([*first, *by_gate], axis=-1), terms=24
    )
    assert_close(
        tape.gradient(fused, layer.bias),
        tf.concat([tape.gradient(reference, e[0][1]) for e in experts], axis=0),
        terms=24,
    )
    kernel, bias = layer.deeper[0]
    assert_close(
        tape.gradient(fused, kernel),
        tf.stack([tape.gradient(reference, e[1][0]) for e in experts]),
        terms=24,
    )
    assert_close(
        tape.gradient(fused, bias)[:, 0],
        tf.stack([tape.gradient(reference, e[1][1]) for e in experts]),
        terms=24,
    )


def test_one_expert_is_a_plain_mlp() -> None:
    layer, x = filled([5, 4], experts=1, tasks=1), drawn()
    plain = tf_keras.Sequential([tf_keras.layers.Dense(w, "relu") for w in layer.units])
    plain.build((None, D))
    (expert,), _ = unfused(layer)
    plain.set_weights([w for pair in expert for w in pair])
    assert_close(layer(tf.constant(x))[:, 0], plain(x), terms=24)


def test_initial_weights_belong_to_seed_name_and_expert() -> None:
    def made(experts: int, tasks: int, seed: int = 1, name: str = "experts") -> ExpertMixture:
        layer = ExpertMixture(experts, [40, 30], tasks, seed=seed, name=name)
        layer(tf.zeros([1, 50]))
        return layer

    few, many = unfused(made(2, 1)), unfused(made(5, 3))
    for e in range(2):
        for (kernel, _), (other, _) in zip(few[0][e], many[0][e], strict=True):
            np.testing.assert_array_equal(kernel, other)
    assert not np.array_equal(few[0][0][0][0], few[0][1][0][0])
    for other in (made(2, 1, seed=2), made(2, 1, name="others")):
        assert not np.array_equal(unfused(other)[0][0][0][0], few[0][0][0][0])
    # Glorot-uniform of one expert: within sqrt(6 / (in + out)), which the values come close to.
    for expert in many[0]:
        for kernel, bias in expert:
            limit = np.sqrt(6 / sum(kernel.shape))
            assert 0.98 * limit < np.abs(kernel).max() <= limit
            assert not bias.any()
    for gate in many[1]:
        limit = np.sqrt(6 / sum(gate.shape))
        assert 0.9 * limit < np.abs(gate).max() <= limit


def test_the_first_product_is_shared_and_no_layer_loops_over_experts() -> None:
    layer = filled([5, 4])
    step = tf.function(layer.call).get_concrete_function(tf.TensorSpec([None, D]))
    products = [op.type for op in step.graph.get_operations() if "MatMul" in op.type]
    assert sorted(products) == ["BatchMatMulV2", "BatchMatMulV2", "MatMul"]


def test_weights_survive_a_checkpoint_and_any_batch_size(tmp_path: Path) -> None:
    layer = filled([5, 4], seed=3)
    path = tf.train.Checkpoint(layer=layer).write(str(tmp_path / "weights"))
    shapes = [s for n, s in tf.train.list_variables(path) if "OBJECT_GRAPH" not in n]
    assert sorted(shapes) == sorted(v.shape.as_list() for v in layer.trainable_variables)
    again = filled([5, 4], seed=4)
    assert not np.allclose(again(drawn()), layer(drawn()))
    tf.train.Checkpoint(layer=again).read(path).assert_consumed()
    np.testing.assert_array_equal(again(drawn()), layer(drawn()))
    compiled = tf.function(again, input_signature=[tf.TensorSpec([None, D])])
    for rows in (0, 1, 3):
        assert compiled(drawn(rows)).shape == (rows, T, 4)


def test_an_expert_without_a_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one layer"):
        ExpertMixture(2, [], 1)
