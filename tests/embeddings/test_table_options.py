"""Storage, frozen tables, groups, maxima, sequences and several tables per width."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.embeddings.hashing import Hashing
from lfm4ads_tf.embeddings.table import EmbeddedFeature, ShardedEmbedding, TableConfig
from lfm4ads_tf.embeddings.transplant import transplant
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.kernels.library import stock_ops
from lfm4ads_tf.optim.hybrid_optimizer import HybridOptimizer
from lfm4ads_tf.optim.rules.adagrad import Adagrad
from lfm4ads_tf.optim.rules.sgd import Sgd
from tests.embeddings.hashed_rows import hashed_rows
from tests.rounding import assert_close

all_shards = pytest.mark.parametrize("shards", [1, 3])
storages = pytest.mark.parametrize("storage", ["float32", "bfloat16", "float16"])
BATCH = 40


def tables(**options: Any) -> list[TableConfig]:
    sizes = {"user": 30, "item": 12, "tag": 7}
    return [TableConfig(name, rows, 4, 0.5, **options) for name, rows in sizes.items()]


FEATURES = [
    EmbeddedFeature("user", "user"),
    EmbeddedFeature("item", "item"),
    EmbeddedFeature("seen", "item", "mean"),
    EmbeddedFeature("tags", "tag", "sum"),
]


def example(seed: int = 0) -> tuple[tf.Tensor, dict[str, Any]]:
    rng = np.random.default_rng(seed)
    ids = np.stack([rng.integers(-1, n, BATCH) for n in (30, 12)], axis=1)

    def bag(rows: int) -> tf.RaggedTensor:
        lengths = rng.integers(0, 4, BATCH)
        return tf.RaggedTensor.from_row_lengths(rng.integers(-1, rows, lengths.sum()), lengths)

    return tf.constant(ids), {"seen": (bag(12), None), "tags": (bag(7), None)}


def train(
    layer: ShardedEmbedding, steps: int = 4, *, traced: bool = False, **options: Any
) -> HybridOptimizer:
    """A few steps that pull the embeddings towards a fixed target."""
    optimizer = HybridOptimizer(0.1, 0.1, **options)
    optimizer.build([layer], [])
    total = len(layer.layout.features)
    target = np.random.default_rng(5).normal(size=(BATCH, total, layer.sets, 4))
    variables = layer.trainable_variables

    def step(ids: tf.Tensor, bags: dict[str, Any]) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(layer(ids, bags)[4] - tf.constant(target, tf.float32)))
        gradients = tape.gradient(loss, variables)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    one = tf.function(step, reduce_retracing=True) if traced else step
    for i in range(steps):
        one(*example(i))
    return optimizer


# -- storage --------------------------------------------------------------------------------------


@storages
@all_shards
def test_values_are_rounded_to_the_storage(storage: str, shards: int) -> None:
    layer = ShardedEmbedding(tables(storage=storage), FEATURES, shards=shards, sets=2)
    wide = ShardedEmbedding(tables(), FEATURES, shards=shards, sets=2)
    assert {part.dtype for part in layer.all_parts()} == {tf.as_dtype(storage)}
    for name in ("user", "item", "tag"):
        rounded = tf.cast(tf.cast(wide.read_table(name), storage), tf.float32)
        np.testing.assert_array_equal(layer.read_table(name), rounded)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(13, 2, 4)).astype(np.float32)
    layer.write_table("item", values)
    rounded = tf.cast(tf.cast(values, storage), tf.float32).numpy()
    np.testing.assert_array_equal(layer.read_table("item"), rounded)
    found = layer(*example())[4]
    assert found.dtype == tf.float32
    np.testing.assert_array_equal(found[:, 1], rounded[example()[0][:, 1]])


@storages
@all_shards
def test_gradients_are_float32(storage: str, shards: int) -> None:
    """A gradient below the storage's smallest number survives."""
    layer = ShardedEmbedding(tables(storage=storage), FEATURES, shards=shards)

    @tf.function
    def gradients() -> list[tf.IndexedSlices]:
        with tf.GradientTape() as tape:
            loss = 1e-30 * tf.reduce_sum(layer(*example())[4])
        return tape.gradient(loss, layer.trainable_variables)

    for gradient in gradients():
        assert isinstance(gradient, tf.IndexedSlices) and gradient.values.dtype == tf.float32
        assert float(tf.reduce_max(gradient.values)) == np.float32(1e-30)


@storages
@all_shards
@pytest.mark.parametrize("stock", [False, True])
def test_a_step_is_float32_arithmetic_rounded_once(storage: str, shards: int, stock: bool) -> None:
    rule = Adagrad(initial=0.3, epsilon=1e-6)
    narrow = ShardedEmbedding(tables(storage=storage), FEATURES, shards=shards, sets=2)
    wide = ShardedEmbedding(tables(), FEATURES, sets=2)
    for name in ("user", "item", "tag"):
        wide.write_table(name, narrow.read_table(name))  # the same start, in float32
    if stock:
        with stock_ops():
            optimizer = train(narrow, 1, rule=rule)
    else:
        optimizer = train(narrow, 1, rule=rule)
    other = train(wide, 1, rule=rule)
    (physical,), (single,) = narrow.physical, wide.physical
    moved = 0
    for name in ("user", "item", "tag"):
        exact, found = wide.read_table(name), narrow.read_table(name)
        rounded = tf.cast(tf.cast(exact, storage), tf.float32).numpy()
        # kernel and stock ops may differ in the last bit of float32, so on either side of a tie
        spacing = {"float32": 2.0**-22, "bfloat16": 2.0**-7, "float16": 2.0**-10}[storage]
        np.testing.assert_allclose(found, rounded, rtol=spacing, atol=1e-7)
        assert np.mean(found != rounded) <= (0.02 if storage != "float32" else 1.0)
        rows = wide.layout.table(name).rows + 1
        one = narrow.read_rows(name, 0, rows, optimizer.slot(narrow, physical, "accumulator"))
        two = wide.read_rows(name, 0, rows, other.slot(wide, single, "accumulator"))
        np.testing.assert_allclose(one, two, rtol=1e-5)
        moved += int(np.any(one != np.float32(0.3), axis=1).sum())
    assert moved > 30


# -- frozen tables and groups ---------------------------------------------------------------------


def mixed(shards: int, **options: Any) -> ShardedEmbedding:
    """The table `item` with options of its own."""
    own = [replace(t, **options) if t.name == "item" else t for t in tables()]
    return ShardedEmbedding(own, FEATURES, shards=shards, sets=2)


@all_shards
def test_frozen_tables_stay_bit_equal_and_have_no_slots(shards: int) -> None:
    layer = mixed(shards, trainable=False)
    assert set(layer.physical) == {"4", "4_frozen"}
    assert len(layer.trainable_variables) == shards
    assert len(layer.weights) == 2 * shards
    before = {name: layer.read_table(name) for name in ("user", "item", "tag")}
    optimizer = train(layer, clip_norm=1.0, table_l2=0.1)
    np.testing.assert_array_equal(layer.read_table("item"), before["item"])
    assert not np.array_equal(layer.read_table("user"), before["user"])
    assert list(optimizer.table_slots) == ["embeddings/table_4/accumulator"]


@all_shards
def test_a_frozen_layer_has_nothing_to_train(shards: int) -> None:
    layer = ShardedEmbedding(tables(trainable=False), FEATURES, shards=shards)
    optimizer = HybridOptimizer(0.1, 0.1)
    optimizer.build([layer], [])
    assert layer.trainable_variables == [] and optimizer.table_slots == {}


@all_shards
@pytest.mark.parametrize("options", [{}, {"table_l2": 0.2}, {"clip_norm": 1e9, "table_l2": 0.2}])
def test_a_group_scales_the_learning_rate(shards: int, options: dict[str, float]) -> None:
    """With plain gradient descent one step is proportional to the rate."""
    steps = {}
    for factor in (None, 1.0, 0.25, 0.0):
        layer = mixed(shards, group="slow")
        before = {name: layer.read_table(name) for name in ("user", "item")}
        rates = None if factor is None else {"slow": factor, "other": 7.0}
        train(layer, 1, rule=Sgd(), group_rates=rates, **options)
        steps[factor] = {n: layer.read_table(n) - value for n, value in before.items()}
    plain = steps[None]
    assert np.abs(plain["item"]).max() > 0.1
    for factor in (1.0, 0.25, 0.0):
        np.testing.assert_array_equal(steps[factor]["user"], plain["user"])
        assert_close(steps[factor]["item"], factor * plain["item"], terms=16)
    assert not steps[0.0]["item"].any()


@all_shards
@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
def test_a_factor_of_zero_freezes_bit_by_bit(shards: int, storage: str) -> None:
    layer = mixed(shards, group="still", storage=storage)
    before = layer.read_table("item")
    train(layer, 4, group_rates={"still": 0.0})
    np.testing.assert_array_equal(layer.read_table("item"), before)


# -- maxima ---------------------------------------------------------------------------------------


def ragged(rows: list[list[int]]) -> tf.RaggedTensor:
    flat = tf.constant([x for row in rows for x in row], tf.int64)
    return tf.RaggedTensor.from_row_lengths(flat, tf.constant([len(r) for r in rows], tf.int64))


bags_of = st.lists(st.lists(st.integers(-1, 11), max_size=4), min_size=3, max_size=3)


@all_shards
@pytest.mark.parametrize("sets", [1, 2])
def test_maxima_equal_numpy(shards: int, sets: int) -> None:
    features = [
        EmbeddedFeature("a", "item", "max"),
        EmbeddedFeature("user", "user"),
        EmbeddedFeature("s", "item", "sum"),
        EmbeddedFeature("b", "item", "max"),
    ]
    layer = ShardedEmbedding(tables(), features, shards=shards, sets=sets)
    item, user = layer.read_table("item"), layer.read_table("user")
    lookup = tf.function(layer, reduce_retracing=True)
    zeros = np.zeros((sets, 4), np.float32)

    @settings(max_examples=25, deadline=None)
    @given(a=bags_of, b=bags_of)
    def check(a: list[list[int]], b: list[list[int]]) -> None:
        bags = {name: (ragged(rows), None) for name, rows in (("a", a), ("s", a), ("b", b))}
        found = lookup(tf.constant([[0], [3], [-1]], tf.int64), bags)[4]
        for row in range(3):
            for column, bag in ((0, a[row]), (3, b[row])):
                kept = [item[i] for i in bag if i >= 0]
                expected = np.max(kept, axis=0) if kept else zeros
                np.testing.assert_array_equal(found[row, column], expected)
            np.testing.assert_array_equal(found[row, 1], user[[0, 3, -1][row]])
            total = sum((item[i] for i in a[row] if i >= 0), zeros)
            assert_close(found[row, 2], total, terms=4, magnitude=4 * np.abs(item).max())

    check()


@all_shards
def test_the_gradient_of_a_maximum_reaches_its_row_alone(shards: int) -> None:
    layer = ShardedEmbedding(tables(), [EmbeddedFeature("a", "item", "max")], shards=shards)
    values = np.zeros((13, 1, 4), np.float32)
    values[3], values[5] = [[1, 2, 3, 4]], [[4, 3, 2, 1]]
    layer.write_table("item", values)
    optimizer = HybridOptimizer(1.0, 1.0, rule=Adagrad(initial=0.0, epsilon=1e-6))
    optimizer.build([layer], [])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(
            layer(tf.zeros([2, 0], tf.int64), {"a": (ragged([[3, 5, -1], []]), None)})[4]
        )
    gradients = tape.gradient(loss, layer.trainable_variables)
    optimizer.apply_gradients(zip(gradients, layer.trainable_variables, strict=True))
    moved = layer.read_table("item") - values
    np.testing.assert_allclose(moved[3, 0], [0, 0, -1, -1], atol=1e-5)
    np.testing.assert_allclose(moved[5, 0], [-1, -1, 0, 0], atol=1e-5)
    moved[[3, 5]] = 0.0
    assert not moved.any()


def test_a_maximum_refuses_weights() -> None:
    layer = ShardedEmbedding(tables(), [EmbeddedFeature("a", "item", "max")])
    bag = ragged([[1, 2]])
    weights = bag.with_values(tf.ones([2]))
    with pytest.raises(ValueError, match="knows no weights"):
        layer(tf.zeros([1, 0], tf.int64), {"a": (bag, weights)})


# -- sequences ------------------------------------------------------------------------------------


@all_shards
@pytest.mark.parametrize("hashing", [None, Hashing("double", 9), Hashing("quotient_remainder", 4)])
def test_sequences_equal_numpy(shards: int, hashing: Hashing | None) -> None:
    own = [replace(t, hashing=hashing) if t.name == "item" else t for t in tables()]
    layer = ShardedEmbedding(own, FEATURES, shards=shards, sets=2)
    stored = layer.read_table("item")
    by_id = stored[:-1]
    if hashing is not None:
        first, second = hashed_rows(hashing, np.arange(12))
        by_id = stored[first] + stored[second]
    by_id = np.concatenate([by_id, stored[-1:]])  # id -1 reads the missing id's row

    lookup = tf.function(layer.sequence, reduce_retracing=True)  # one trace for each length

    @settings(max_examples=20, deadline=None)
    @given(rows=bags_of, length=st.sampled_from([2, 5]))
    def check(rows: list[list[int]], length: int) -> None:
        values, mask = lookup("seen", ragged(rows), length)
        assert values.shape == (3, length, 2, 4) and mask.dtype == tf.bool
        for b, row in enumerate(rows):
            last = row[-length:]
            np.testing.assert_array_equal(mask[b], np.arange(length) < len(last))
            expected = np.zeros((length, 2, 4), np.float32)
            for k, i in enumerate(last):
                expected[k] = by_id[i]
            assert_close(values[b], expected, terms=2, magnitude=2 * np.abs(by_id).max())

    check()


@all_shards
def test_what_lies_behind_a_sequence_gets_no_gradient(shards: int) -> None:
    layer = ShardedEmbedding(tables(), FEATURES, shards=shards)
    before = layer.read_table("item")
    optimizer = HybridOptimizer(1.0, 1.0)
    optimizer.build([layer], [])
    with tf.GradientTape() as tape:
        values, _ = layer.sequence("seen", ragged([[4, 7], []]), 3)
        loss = tf.reduce_sum(values)
    gradients = tape.gradient(loss, layer.trainable_variables)
    optimizer.apply_gradients(zip(gradients, layer.trainable_variables, strict=True))
    changed = np.any(layer.read_table("item") != before, axis=(1, 2))
    np.testing.assert_array_equal(np.flatnonzero(changed), [4, 7])  # not the missing id's row


# -- several tables per width ---------------------------------------------------------------------


@all_shards
@pytest.mark.parametrize("per_width", [2, 8])
@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.5, "table_l2": 0.1}])
def test_several_tables_per_width_train_as_one(
    shards: int, per_width: int, options: dict[str, float]
) -> None:
    one = ShardedEmbedding(tables(), FEATURES, sets=2, seed=3)
    several = ShardedEmbedding(
        tables(), FEATURES, sets=2, seed=3, shards=shards, tables_per_width=per_width
    )
    assert len(several.physical) == min(per_width, 3)
    assert several.fields(4) == one.fields(4) and several.dims == (4,)
    for name in ("user", "item", "tag"):
        np.testing.assert_array_equal(several.read_table(name), one.read_table(name))
    assert_close(several(*example())[4], one(*example())[4], terms=16)
    train(one, **options)
    train(several, **options)
    for name in ("user", "item", "tag"):
        assert_close(several.read_table(name), one.read_table(name), terms=16)
    again = ShardedEmbedding.from_manifest(several.manifest())
    assert again.physical == several.physical and again.tables_per_width == per_width


# -- all at once ----------------------------------------------------------------------------------


@all_shards
def test_treatments_live_side_by_side_and_merge_into_one(shards: int) -> None:
    """What an export does: every table into one float32 table of its width."""
    hashed = Hashing("double", 5)
    own = [
        TableConfig("user", 30, 4, 0.5, storage="bfloat16"),
        TableConfig("item", 12, 4, 0.5, storage="float16", hashing=hashed),
        TableConfig("tag", 7, 4, 0.5, trainable=False),
    ]
    layer = ShardedEmbedding(own, FEATURES, shards=shards, sets=2)
    assert set(layer.physical) == {"4_bfloat16", "4_float16", "4_frozen"}
    train(layer, traced=True)
    expected = layer(*example())[4]
    plain = [replace(table, storage="float32", trainable=True) for table in own]
    merged = ShardedEmbedding(plain, FEATURES, sets=2, seed=9)
    assert merged.physical == ("4",)
    assert transplant(layer, merged) == ("user", "item", "tag")
    assert_close(merged(*example())[4], expected, terms=16)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"storage": "int4"}, "unknown storage"),
        ({"dim": 0}, "at least one row and one column"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ShardedEmbedding([replace(tables()[0], **options)], FEATURES[:1])


def test_tables_per_width_must_be_positive() -> None:
    with pytest.raises(UserError, match="one table per width"):
        ShardedEmbedding(tables(), FEATURES, tables_per_width=0)
