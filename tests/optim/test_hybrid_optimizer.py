"""HybridOptimizer against NumPy, row by row, and its slots in checkpoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.embeddings.table import EmbeddedFeature, ShardedEmbedding, TableConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.optim.hybrid_optimizer import HybridOptimizer
from lfm4ads_tf.optim.rules.adagrad import Adagrad
from tests.rounding import assert_close

pytestmark = pytest.mark.processor

SETS, DIM = 2, 3


def build_layer(shards: int, seed: int = 1) -> ShardedEmbedding:
    return ShardedEmbedding(
        [TableConfig("user", 30, DIM, 0.5), TableConfig("item", 12, DIM, 0.5)],
        [EmbeddedFeature("user", "user"), EmbeddedFeature("item", "item")],
        shards=shards,
        sets=SETS,
        seed=seed,
    )


def whole(layer: ShardedEmbedding, variable: object = None) -> np.ndarray:
    """All physical rows."""
    names = layer.layout.tables.values()
    return np.concatenate([layer.read_rows(t.name, 0, t.rows + 1, variable) for t in names])


def per_part(layer: ShardedEmbedding, rows: np.ndarray, values: np.ndarray) -> list:
    """The gradient of logical rows as one IndexedSlices per shard."""
    physical = layer.layout.fused[str(DIM)].spread.forward(rows)
    slices, start = [], 0
    for part in layer.parts(str(DIM)):
        mine = (physical >= start) & (physical < start + part.shape[0])
        index = tf.constant(physical[mine] - start, tf.int64)
        slices.append(tf.IndexedSlices(tf.constant(values[mine]), index))
        start += part.shape[0]
    return slices


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("row_wise", [False, True])
@pytest.mark.parametrize("clip_norm, table_l2", [(None, 0.0), (0.7, 0.0), (None, 0.3), (0.7, 0.3)])
def test_adagrad_equals_numpy(
    shards: int, row_wise: bool, clip_norm: float | None, table_l2: float
) -> None:
    layer = build_layer(shards)
    optimizer = HybridOptimizer(
        0.1, 0.1,
        rule=Adagrad(initial=0.2, epsilon=1e-6, row_wise=row_wise), clip_norm=clip_norm,
        table_l2=table_l2,
    )  # fmt: skip
    optimizer.build([layer], [])
    weights = whole(layer).reshape(-1, SETS, DIM).astype(np.float64)
    sums = np.full((len(weights), SETS, 1 if row_wise else DIM), 0.2)
    initial, untouched = whole(layer), np.ones(len(weights), bool)
    rng = np.random.default_rng(0)
    parts = layer.parts(str(DIM))
    step = tf.function(lambda g: optimizer.apply_gradients(zip(g, parts, strict=True)))
    for _ in range(4):
        rows = rng.integers(0, 20, 15)  # duplicates for certain, rows 20.. never
        values = rng.normal(size=(15, SETS, DIM)).astype(np.float32)
        values[:, 0] *= rows[:, np.newaxis] % 2  # even rows: no gradient in the first set
        before = whole(layer).reshape(-1, SETS, DIM)
        step(per_part(layer, rows, values.reshape(15, -1)))

        gradient = np.zeros_like(weights)
        np.add.at(gradient, rows, values)
        used = np.any(gradient != 0, axis=-1, keepdims=True)
        gradient += table_l2 * np.where(used, weights, 0.0)
        if clip_norm is not None:
            norm = np.sqrt(np.sum(gradient**2))
            assert norm > clip_norm
            gradient *= clip_norm / norm
        squares = gradient**2
        sums += squares.mean(axis=-1, keepdims=True) if row_wise else squares
        weights -= 0.1 * gradient / (np.sqrt(sums) + 1e-6)
        after = whole(layer).reshape(-1, SETS, DIM)
        still = ~np.broadcast_to(used, after.shape)
        np.testing.assert_array_equal(after[still], before[still])
        assert np.all(np.any(after != before, axis=-1) == used[..., 0])
        untouched[rows] = False
    assert_close(after, weights, terms=48)
    slot = whole(layer, optimizer.slot(layer, str(DIM), "accumulator"))
    np.testing.assert_allclose(slot, sums.reshape(len(sums), -1), rtol=1e-5)
    assert untouched.sum() >= 24
    np.testing.assert_array_equal(whole(layer)[untouched], initial[untouched])
    assert np.all(slot[untouched] == np.float32(0.2))
    even = np.flatnonzero(~untouched & (np.arange(len(untouched)) % 2 == 0))
    assert np.all(slot.reshape(len(sums), SETS, -1)[even, 0] == np.float32(0.2))
    assert int(optimizer.iterations) == 4


@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_adam_and_adamw_equal_numpy(weight_decay: float, clip_norm: float | None) -> None:
    rng = np.random.default_rng(1)
    start = {"kernel": rng.normal(size=(4, 3)), "bias": rng.normal(size=3)}
    variables = {k: tf.Variable(v, dtype=tf.float32, name=f"d/{k}") for k, v in start.items()}
    optimizer = HybridOptimizer(
        0.1, 0.01, weight_decay=weight_decay, clip_norm=clip_norm, epsilon=1e-8
    )
    optimizer.build([], list(variables.values()))
    first = {k: np.zeros_like(v) for k, v in start.items()}
    second = {k: np.zeros_like(v) for k, v in start.items()}
    for t in range(1, 6):
        rate = 0.01 / t
        optimizer.dense_learning_rate.assign(rate)
        gradients = {k: rng.normal(size=v.shape) for k, v in start.items()}
        optimizer.apply_gradients(
            [(tf.constant(g, tf.float32), variables[k]) for k, g in gradients.items()]
        )
        norm = np.sqrt(sum(np.sum(g**2) for g in gradients.values()))
        for k, g in gradients.items():
            g = g if clip_norm is None else g * clip_norm / max(norm, clip_norm)
            if k != "bias":
                start[k] = start[k] * (1 - rate * weight_decay)
            first[k] = 0.9 * first[k] + 0.1 * g
            second[k] = 0.999 * second[k] + 0.001 * g**2
            size = rate * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            start[k] = start[k] - size * first[k] / (np.sqrt(second[k]) + 1e-8)
    for k, value in start.items():
        assert_close(variables[k], value, terms=48)


def test_the_clipped_norm_spans_tables_and_dense_variables() -> None:
    layer, dense = build_layer(2), tf.Variable([1.0], name="dense")
    optimizer = HybridOptimizer(1.0, 1.0, clip_norm=1.0, rule=Adagrad(initial=0.0, epsilon=1.0))
    optimizer.build([layer], [dense])
    # one row twice: its gradients must be summed before the norm, (3 + 1)^2 + 3^2 = 25
    values = np.zeros((2, SETS * DIM), np.float32)
    values[0, 0], values[1, 0] = 3.0, 1.0
    before = whole(layer)[5, 0]
    gradients = [*per_part(layer, np.array([5, 5]), values), tf.constant([3.0])]
    optimizer.apply_gradients(zip(gradients, [*layer.parts(str(DIM)), dense], strict=True))
    np.testing.assert_allclose(before - whole(layer)[5, 0], 0.8 / (0.8 + 1.0), rtol=1e-5)
    np.testing.assert_allclose(optimizer.first_moments["dense"], [0.1 * 0.6], rtol=1e-5)


def train(shards: int, steps: int) -> tuple[ShardedEmbedding, tf.Variable, HybridOptimizer]:
    layer = build_layer(shards)
    head = tf.Variable(tf.random.stateless_normal((2 * SETS * DIM, 1), [1, 2]), name="head")
    optimizer = HybridOptimizer(0.1, 0.01, weight_decay=0.01, clip_norm=0.2, table_l2=0.01)
    optimizer.build([layer], [head])
    variables = [*layer.trainable_variables, head]

    @tf.function
    def step(ids: tf.Tensor, labels: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            fields = tf.reshape(layer(ids)[DIM], [-1, 2 * SETS * DIM])
            logits = tf.matmul(fields, head)[:, 0]
            losses = tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, variables)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    rng = np.random.default_rng(2)
    for _ in range(steps):
        ids = np.stack([rng.integers(-1, 30, 64), rng.integers(-1, 12, 64)], axis=1)
        step(tf.constant(ids), tf.constant(rng.integers(0, 2, 64), tf.float32))
    return layer, head, optimizer


def state(layer: ShardedEmbedding, head: tf.Variable, optimizer: HybridOptimizer) -> dict:
    moments = optimizer.first_moments, optimizer.second_moments
    return {
        "table": whole(layer),
        "accumulator": whole(layer, optimizer.slot(layer, str(DIM), "accumulator")),
        "head": head.numpy(),
        **{str(i): slots["head"].numpy() for i, slots in enumerate(moments)},
        "iterations": optimizer.iterations.numpy(),
    }


@pytest.mark.parametrize("shards", [2, 4])
def test_training_does_not_depend_on_the_number_of_shards(shards: int) -> None:
    one, many = state(*train(1, 5)), state(*train(shards, 5))
    for name, value in one.items():
        np.testing.assert_allclose(many[name], value, rtol=0, atol=1e-7, err_msg=name)
    assert np.abs(one["table"] - whole(build_layer(1))).max() > 0.01


def test_a_checkpoint_changes_shards_with_its_slots(tmp_path: Path) -> None:
    def checkpoint(trained: tuple) -> tf.train.Checkpoint:
        layer, head, optimizer = trained
        return tf.train.Checkpoint(layer=layer, head=head, optimizer=optimizer)

    trained = train(4, 3)
    expected = state(*trained)
    for shards in (1, 3, 2, 4):
        path = checkpoint(trained).write(str(tmp_path / f"to_{shards}"))
        trained = train(shards, 1)
        checkpoint(trained).read(path).assert_consumed()
        found = state(*trained)
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=f"{name}, {shards} shards")


def test_a_variable_added_later_leaves_the_other_slots_intact(tmp_path: Path) -> None:
    old = [tf.Variable([1.0, 2.0], name="a"), tf.Variable([3.0], name="b")]
    first = HybridOptimizer(0.1, 0.1)
    first.build([], old)
    first.apply_gradients([(tf.constant([1.0, -1.0]), old[0]), (tf.constant([2.0]), old[1])])
    path = tf.train.Checkpoint(optimizer=first).write(str(tmp_path / "ckpt"))
    new = [tf.Variable([0.0] * 3, name="0"), *old[::-1]]  # sorts first, and the order is turned
    second = HybridOptimizer(0.1, 0.1)
    second.build([], new)
    tf.train.Checkpoint(optimizer=second).read(path).expect_partial()
    for name in ("a", "b"):
        np.testing.assert_array_equal(second.first_moments[name], first.first_moments[name])
        np.testing.assert_array_equal(second.second_moments[name], first.second_moments[name])
    assert not second.first_moments["0"].numpy().any()
    kept = second.first_moments["a"]
    second.build([build_layer(1)], [tf.Variable(1.0, name="c")])  # a further call only adds
    assert second.first_moments["a"] is kept
    assert sorted(second.first_moments) == ["0", "a", "b", "c"]


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("row_wise", [False, True])
def test_no_op_of_a_step_has_the_size_of_a_table(shards: int, row_wise: bool) -> None:
    layer = ShardedEmbedding(
        [TableConfig("user", 100_002, 2)], [EmbeddedFeature("user", "user")], shards=shards
    )
    optimizer = HybridOptimizer(
        0.1, 0.1, clip_norm=1.0, table_l2=0.1, rule=Adagrad(row_wise=row_wise)
    )
    optimizer.build([layer], [])
    variables = layer.trainable_variables

    @tf.function
    def step(ids: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(ids)[2] ** 2)
        gradients = tape.gradient(loss, variables)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    graph = step.get_concrete_function(tf.zeros((8, 1), tf.int64)).graph
    sizes = [t.shape.num_elements() or 0 for op in graph.get_operations() for t in op.outputs]
    assert len(sizes) > 30 and max(sizes) < 1000


def test_misuse_is_refused() -> None:
    layer = build_layer(1)
    optimizer = HybridOptimizer(0.1, 0.1)
    optimizer.build([layer], [])
    with pytest.raises(ValueError, match="every row"):
        optimizer.apply_gradients(
            [(tf.ones(layer.parts(str(DIM))[0].shape), layer.parts(str(DIM))[0])]
        )
    with pytest.raises(ValueError, match="not built with variable 'x:0'"):
        optimizer.apply_gradients([(tf.constant(1.0), tf.Variable(1.0, name="x"))])
    with pytest.raises(UserError, match="the path 'x'"):
        optimizer.build([], [tf.Variable(1.0, name="x"), tf.Variable(1.0, name="x")])
    with pytest.raises(UserError, match="embeddings/table_3"):
        optimizer.build([build_layer(1)], [])
    with pytest.raises(UserError, match="epsilon"):
        HybridOptimizer(0.1, 0.1, epsilon=0.0)
    twins = {"left": tf.Variable(1.0, name="x"), "right": tf.Variable(1.0, name="x")}
    optimizer.build([], twins)
    optimizer.apply_gradients([(None, twins["left"]), (tf.constant(1.0), twins["right"])])
    assert twins["left"].numpy() == 1.0
    np.testing.assert_allclose(twins["right"], 0.9, rtol=1e-5)
