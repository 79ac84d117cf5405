from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.interactions.block import InteractionBlock, layer_names
from lfm4ads_tf.interactions.config import BlockConfig
from lfm4ads_tf.interactions.field_group import FieldGroup
from lfm4ads_tf.interactions.inputs import BlockInputs
from lfm4ads_tf.strict import parse
from tests.rounding import assert_close

pytestmark = pytest.mark.processor

FM, CROSS, DNN = (
    {"type": "fm", "dim": 4},
    {"type": "cross", "depth": 2},
    {"type": "dnn", "units": [6, 5]},
)


def config(layers: list[dict[str, Any]], structure: str = "stacked") -> BlockConfig:
    return parse(BlockConfig, {"structure": structure, "layers": layers}, source="block")


def group(values: tf.Tensor) -> FieldGroup:
    names = [f"field_{k}" for k in range(values.shape[1])]
    return FieldGroup(values, names, ["user"] * len(names))


def inputs(**over: Any) -> BlockInputs:
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> tf.Tensor:
        return tf.constant(rng.normal(size=shape).astype(np.float32))

    given: dict[str, Any] = {
        "user": draw(8, 3),
        "item": draw(8, 4),
        "context": draw(8, 2),
        "fields": [group(draw(8, 5, 4))],
    }
    return BlockInputs(**{**given, **over})


def relu(x: Any) -> np.ndarray:
    return np.maximum(np.asarray(x), 0)


class Oracle:
    """The block in NumPy, from the weights of the layers."""

    def __init__(self, block: InteractionBlock) -> None:
        self.weights = {
            v.name.split(":")[0].split("/", 1)[-1]: v.numpy() for v in block.trainable_variables
        }

    def matrix(self, layer: str, kind: str) -> np.ndarray:
        (found,) = [w for n, w in self.weights.items() if f"{layer}/" in n and n.endswith(kind)]
        return found

    def fm(self, fields: np.ndarray) -> np.ndarray:
        return 0.5 * (fields.sum(1) ** 2 - (fields**2).sum(1))

    def cross(self, x0: np.ndarray, depth: int = 2) -> list[np.ndarray]:
        out, x = [], x0
        for k in range(1, depth + 1):
            x = (
                x0 * (x @ self.matrix(f"cross_{k}", "kernel") + self.matrix(f"cross_{k}", "bias"))
                + x
            )
            out.append(x)
        return out

    def dnn(self, x: np.ndarray) -> list[np.ndarray]:
        out = []
        for k in (1, 2):
            out.append(x @ self.matrix(f"dnn_{k}", "kernel") + self.matrix(f"dnn_{k}", "bias"))
            x = relu(out[-1])
        return out


def run(block: InteractionBlock, given: BlockInputs) -> tuple[dict[str, np.ndarray], np.ndarray]:
    block(given)
    rng = np.random.default_rng(9)
    for variable in block.trainable_variables:
        variable.assign(rng.normal(0, 0.4, size=variable.shape))
    activations, output = block(given)
    return {n: a.numpy() for n, a in activations.items()}, output.numpy()


def test_stacked_each_layer_reads_what_the_one_before_left() -> None:
    block = InteractionBlock(config([FM, CROSS, DNN]), name="block")
    given = inputs()
    found, output = run(block, given)
    oracle = Oracle(block)
    towers = np.concatenate([given.user, given.item, given.context], axis=1)
    z = oracle.fm(np.asarray(given.fields[0].values))
    crossed = oracle.cross(np.concatenate([towers, z], axis=1))
    hidden = oracle.dnn(crossed[-1])
    expected = {
        "towers": towers,
        "fm": z,
        "cross_1": crossed[0],
        "cross_2": crossed[1],
        "dnn_1": hidden[0],
        "dnn_2": hidden[1],
    }
    assert list(found) == list(expected) == block.layer_names
    for name, value in expected.items():
        assert_close(found[name], value, terms=48, what=name)
    assert_close(output, relu(hidden[-1]), terms=48)


def test_parallel_layers_read_the_towers_and_lie_side_by_side() -> None:
    block = InteractionBlock(config([FM, CROSS, DNN], "parallel"), name="block")
    given = inputs()
    found, output = run(block, given)
    oracle = Oracle(block)
    towers = np.concatenate([given.user, given.item, given.context], axis=1)
    z = oracle.fm(np.asarray(given.fields[0].values))
    crossed = oracle.cross(towers)
    hidden = oracle.dnn(np.concatenate([towers, z], axis=1))
    assert_close(found["cross_2"], crossed[1], terms=48)
    assert_close(found["dnn_2"], hidden[1], terms=48)
    expected = np.concatenate([z, crossed[1], relu(hidden[1])], axis=1)
    assert_close(output, expected, terms=48)
    assert list(found) == block.layer_names


@pytest.mark.parametrize("structure", ["stacked", "parallel"])
@pytest.mark.parametrize("layers", [[FM], [CROSS], [DNN], [DNN, CROSS], [CROSS, FM], []])
def test_names_follow_the_configured_order(structure: str, layers: list[dict[str, Any]]) -> None:
    setup = config(layers, structure)
    found, output = run(InteractionBlock(setup, name="block"), inputs())
    assert list(found) == layer_names(setup)
    assert output.shape[0] == 8


def test_gate_scales_the_own_part_and_extra_joins_behind_it() -> None:
    given = inputs()
    gate, extra = tf.fill([8, 9], 0.5), tf.ones([8, 3])
    both = inputs(gate=gate, extra=(extra, 2 * extra))
    found, _ = run(InteractionBlock(config([CROSS]), name="block"), both)
    own = np.concatenate([given.user, given.item, given.context], axis=1)
    expected = np.concatenate([own * 0.5, np.ones((8, 3)), np.full((8, 3), 2.0)], axis=1)
    assert_close(found["towers"], expected, terms=1)


def test_without_context() -> None:
    found, _ = run(InteractionBlock(config([CROSS]), name="block"), inputs(context=None))
    assert found["towers"].shape == (8, 7)


def test_two_layers_of_one_name_are_refused() -> None:
    with pytest.raises(UserError, match="called 'cross'"):
        InteractionBlock(config([CROSS, DNN, CROSS]))
    with pytest.raises(UserError, match="'cross_1' of an interaction layer's activation is taken"):
        InteractionBlock(config([CROSS, {**FM, "name": "cross_1"}]))


@pytest.mark.parametrize(
    "structure, name",
    [
        ("stacked", "towers"),
        ("stacked", "output"),
        ("parallel", "embeddings"),
        ("parallel", "tables"),  # a part of `warm_start_rates`
        ("parallel", "heads"),
        ("gated", "gates"),
        ("gated", "mix_click"),
    ],
)
def test_a_name_that_means_something_else_is_refused(structure: str, name: str) -> None:
    raw = {"structure": structure, "layers": [{"type": "fm", "name": name}]}
    with pytest.raises(UserError, match=f"'{name}' of an interaction layer's activation is taken"):
        InteractionBlock(parse(BlockConfig, raw, source="block"), tasks=["click"], name="block")


def test_a_mixture_s_name_is_free_without_mixtures() -> None:
    config = parse(BlockConfig, {"layers": [{"type": "fm", "name": "mix_click"}]}, source="block")
    assert InteractionBlock(config).layer_names == ["towers", "mix_click"]


@pytest.mark.parametrize("structure", ["stacked", "parallel"])
def test_a_type_several_times_under_names_of_its_own(structure: str) -> None:
    layers = [CROSS, {"type": "dnn", "units": [6, 5]}, {"type": "cross", "depth": 1, "name": "top"}]
    setup = config([*layers, {"type": "dnn", "units": [3], "name": "last"}], structure)
    block = InteractionBlock(setup, name="block")
    given = inputs()
    found, output = run(block, given)
    assert list(found) == ["towers", "cross_1", "cross_2", "dnn_1", "dnn_2", "top_1", "last_1"]
    oracle = Oracle(block)
    towers = np.concatenate([given.user, given.item, given.context], axis=1)
    stacked = structure == "stacked"
    crossed = oracle.cross(towers)[-1]
    hidden = relu(oracle.dnn(crossed if stacked else towers)[-1])
    x = hidden if stacked else towers
    top = x * (x @ oracle.matrix("top_1", "kernel") + oracle.matrix("top_1", "bias")) + x
    x = top if stacked else towers
    last = relu(x @ oracle.matrix("last_1", "kernel") + oracle.matrix("last_1", "bias"))
    expected = last if stacked else np.concatenate([crossed, hidden, top, last], axis=1)
    # products of sums of products: each of the four layers adds some terms to a bound
    assert_close(output, expected, terms=96)


def test_what_joins_a_stacked_stream_joins_the_stream_before_it() -> None:
    block = InteractionBlock(config([CROSS, FM, DNN]), name="block")
    given = inputs()
    found, output = run(block, given)
    oracle = Oracle(block)
    towers = np.concatenate([given.user, given.item, given.context], axis=1)
    z = oracle.fm(np.asarray(given.fields[0].values))
    hidden = oracle.dnn(np.concatenate([oracle.cross(towers)[-1], z], axis=1))
    assert_close(found["dnn_1"], hidden[0], terms=48)
    assert_close(output, relu(hidden[-1]), terms=48)
