"""Gates per task against NumPy, alone and inside a gated interaction block."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.interactions.block import InteractionBlock, layer_names
from lfm4ads_tf.interactions.config import BlockConfig
from lfm4ads_tf.interactions.field_group import FieldGroup
from lfm4ads_tf.interactions.inputs import BlockInputs
from lfm4ads_tf.interactions.task_gates import TaskGates
from lfm4ads_tf.strict import parse
from tests.rounding import assert_close

pytestmark = pytest.mark.processor

LAYERS = [
    {"type": "fm", "dim": 4},
    {"type": "cross", "depth": 2},
    {"type": "dnn", "units": [6, 5]},
]


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def randomise(layer: tf.Module) -> None:
    rng = np.random.default_rng(3)
    for variable in layer.trainable_variables:
        variable.assign(rng.normal(0, 0.5, size=variable.shape))


def mixture(gates: TaskGates, stream: np.ndarray, outputs: list[np.ndarray]) -> np.ndarray:
    """The oracle: row by row, task by task, expert by expert."""
    projected = [
        np.maximum(o @ p.kernel.numpy() + p.bias.numpy(), 0)
        for o, p in zip(outputs, gates.projections, strict=True)
    ]
    kernel = gates.kernel.numpy()
    found = np.zeros((len(stream), gates.tasks, projected[0].shape[1]))
    for t in range(gates.tasks):
        for b, x in enumerate(stream):
            score = x @ kernel[:, t * len(outputs) : (t + 1) * len(outputs)]
            weight = np.exp(score - score.max())
            weight /= weight.sum()
            found[b, t] = sum(w * p[b] for w, p in zip(weight, projected, strict=True))
    return found


@pytest.mark.parametrize("tasks", [1, 3])
def test_mixture_is_the_loop_over_tasks_and_experts(tasks: int) -> None:
    gates = TaskGates(["fm", "cross"], tasks, 7, seed=1)
    stream, outputs = drawn(5, 6), [drawn(5, 4, seed=1), drawn(5, 6, seed=2)]
    assert gates((stream, outputs)).shape == (5, tasks, 7)
    randomise(gates)
    assert_close(gates((stream, outputs)), mixture(gates, stream, outputs), terms=32)


def test_a_further_expert_or_task_leaves_the_others_initial_weights() -> None:
    stream, outputs = drawn(2, 6), [drawn(2, 4), drawn(2, 3), drawn(2, 5)]
    small, tall, wide = (
        TaskGates(names, tasks, 7, seed=1)
        for names, tasks in ((["a", "b"], 1), (["a", "b"], 2), (["a", "b", "c"], 1))
    )
    small((stream, outputs[:2]))
    tall((stream, outputs[:2]))
    wide((stream, outputs))
    np.testing.assert_array_equal(tall.kernel[:, :2], small.kernel)
    assert not np.array_equal(tall.kernel[:, 2:], small.kernel)
    for one, other in zip(small.projections, wide.projections[:2], strict=True):
        np.testing.assert_array_equal(one.kernel, other.kernel)


def test_a_gated_block_mixes_what_each_layer_makes_of_the_towers() -> None:
    config = parse(
        BlockConfig, {"structure": "gated", "mix_dim": 3, "layers": LAYERS}, source="block"
    )
    given = BlockInputs(
        user=drawn(8, 3),
        item=drawn(8, 4, seed=1),
        context=None,
        fields=[FieldGroup(drawn(8, 5, 4, seed=2), list("abcde"), ["user"] * 5)],
    )
    block = InteractionBlock(config, tasks=["click", "buy"], name="block")
    block(given)
    randomise(block)
    found, output = block(given)
    names = ["towers", "fm", "cross_1", "cross_2", "dnn_1", "dnn_2", "mix_click", "mix_buy"]
    assert list(found) == names == block.layer_names == layer_names(config, ["click", "buy"])
    x = np.concatenate([given.user, given.item], axis=1)
    # The single layers are those of the parallel structure, but for the DNN, which reads x_0.
    dnn_1 = next(v for v in block.trainable_variables if "dnn_1/kernel" in v.name)
    assert dnn_1.shape == (7, 6)
    cross_1 = next(
        v for v in block.trainable_variables if "cross_1" in v.name and "kernel:" in v.name
    )
    assert_close(found["cross_1"], x * (x @ cross_1.numpy() + _bias(block)) + x, terms=32)
    experts = [found["fm"].numpy(), found["cross_2"].numpy(), np.maximum(found["dnn_2"], 0)]
    assert block.gates is not None
    expected = mixture(block.gates, x, experts)
    assert_close(found["mix_click"], expected[:, 0], terms=32)
    assert_close(found["mix_buy"], expected[:, 1], terms=32)
    assert_close(output, expected.reshape(8, 6), terms=32)


def _bias(block: InteractionBlock) -> np.ndarray:
    (found,) = [v for v in block.trainable_variables if "cross_1" in v.name and "bias" in v.name]
    return found.numpy()


def test_gates_need_tasks_and_layers() -> None:
    gated = parse(BlockConfig, {"structure": "gated", "layers": LAYERS}, source="block")
    with pytest.raises(ValueError, match="needs the tasks"):
        InteractionBlock(gated)
    empty = parse(BlockConfig, {"structure": "gated", "layers": []}, source="block")
    with pytest.raises(UserError, match="mixes its layers"):
        InteractionBlock(empty, tasks=["click"])
