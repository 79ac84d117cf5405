"""ShardedEmbedding against NumPy, and its life inside Keras models, checkpoints and exports."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.embeddings.table import EmbeddedFeature, ShardedEmbedding, TableConfig
from lfm4ads_tf.errors import UserError
from tests.rounding import assert_close

pytestmark = pytest.mark.processor

TABLES = [TableConfig("user", 9, 4), TableConfig("item", 23, 4, 0.5), TableConfig("tag", 6, 2)]
FEATURES = [
    EmbeddedFeature("user_id", "user"),
    EmbeddedFeature("seen", "item", "mean"),
    EmbeddedFeature("tag", "tag"),
    EmbeddedFeature("item_id", "item"),
    EmbeddedFeature("liked", "item", "sum"),
    EmbeddedFeature("tags", "tag", "mean"),
]


def fill_randomly(layer: ShardedEmbedding) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    tables = {}
    for name, config in layer.layout.tables.items():
        shape = (config.rows + 1, layer.sets, config.dim)
        tables[name] = rng.normal(size=shape).astype(np.float32)
        layer.write_table(name, tables[name])
    return tables


def oracle(
    layer: ShardedEmbedding, tables: dict[str, np.ndarray], ids: np.ndarray, bags: dict
) -> dict[int, np.ndarray]:
    """The lookup written as loops; NumPy's index -1 is the last row, the missing id's."""
    out = {}
    for dim in layer.dims:
        columns = []
        for feature in layer.layout.features:
            table = tables[feature.table]
            if table.shape[2] != dim:
                continue
            if feature.combiner is None:
                columns.append(table[ids[:, layer.single_features.index(feature.name)]])
                continue
            rows, weights = bags[feature.name]
            pooled = np.zeros((len(ids), layer.sets, dim))
            for b, row in enumerate(rows):
                w = weights[b] if weights is not None else [1.0] * len(row)
                kept = [(i, x) for i, x in zip(row, w, strict=True) if i != -1]
                total = sum(x for _, x in kept)
                for i, x in kept:
                    pooled[b] += x * table[i]
                if feature.combiner == "mean":
                    pooled[b] = pooled[b] / total if total else 0.0
            columns.append(pooled)
        out[dim] = np.stack(columns, axis=1)
    return out


@st.composite
def batches(draw) -> tuple[np.ndarray, dict]:
    size = draw(st.integers(1, 5))
    rows = {table.name: table.rows for table in TABLES}

    def one(feature: EmbeddedFeature) -> st.SearchStrategy[int]:
        return st.integers(-1, rows[feature.table] - 1)

    singles = [f for f in FEATURES if f.combiner is None]
    ids = [[draw(one(f)) for f in singles] for _ in range(size)]
    bags = {}
    for feature in FEATURES:
        if feature.combiner is None:
            continue
        values = [draw(st.lists(one(feature), max_size=4)) for _ in range(size)]
        weights = None
        if draw(st.booleans()):
            weight = st.sampled_from([0.0, 0.25, 1.0, 3.0])
            weights = [[draw(weight) for _ in row] for row in values]
        bags[feature.name] = (values, weights)
    return np.array(ids, np.int64).reshape(size, len(singles)), bags


def ragged(rows: list[list], dtype: tf.DType) -> tf.RaggedTensor:
    flat = tf.constant([x for row in rows for x in row], dtype)
    return tf.RaggedTensor.from_row_lengths(flat, tf.constant([len(r) for r in rows], tf.int64))


def as_bags(bags: dict) -> dict:
    return {
        name: (ragged(v, tf.int64), None if w is None else ragged(w, tf.float32))
        for name, (v, w) in bags.items()
    }


@pytest.mark.parametrize("shards", [1, 2, 3, 4])
@pytest.mark.parametrize("sets", [1, 2])
def test_lookup_equals_numpy(shards: int, sets: int) -> None:
    layer = ShardedEmbedding(TABLES, FEATURES, shards=shards, sets=sets)
    tables = fill_randomly(layer)
    largest = max(np.abs(values).max() for values in tables.values())

    @settings(max_examples=20, deadline=None)
    @given(batch=batches())
    def check(batch: tuple[np.ndarray, dict]) -> None:
        ids, bags = batch
        found = layer(tf.constant(ids), as_bags(bags))
        expected = oracle(layer, tables, ids, bags)
        assert list(found) == [4, 2]
        for dim, values in expected.items():
            assert found[dim].shape == values.shape
            # at most four rows with weights of at most 3
            assert_close(found[dim], values, terms=8, magnitude=12 * largest)

    check()


def test_fields_are_in_declared_order() -> None:
    layer = ShardedEmbedding(TABLES, FEATURES)
    assert layer.fields(4) == ("user_id", "seen", "item_id", "liked")
    assert layer.fields(2) == ("tag", "tags")
    assert layer.single_features == ("user_id", "tag", "item_id")
    assert layer.bag_features == ("seen", "liked", "tags")


@pytest.mark.parametrize("shards", [1, 3])
def test_gradients_reach_the_used_rows_only(shards: int) -> None:
    layer = ShardedEmbedding(TABLES[:2], FEATURES[:2], shards=shards)
    with tf.GradientTape() as tape:
        seen = ragged([[5, -1, 7], []], tf.int64), ragged([[1.0, 9.0, 3.0], []], tf.float32)
        fields = layer(tf.constant([[2], [-1]], tf.int64), {"seen": seen})[4]
        loss = tf.reduce_sum(fields)
    gradients = tape.gradient(loss, layer.trainable_variables)
    assert all(isinstance(g, tf.IndexedSlices) for g in gradients)
    dense = np.concatenate([tf.convert_to_tensor(g).numpy() for g in gradients])
    logical = dense[layer.layout.fused["4"].spread.forward(np.arange(len(dense)))]
    expected = np.zeros((10 + 24, 4))
    expected[[2, 9]] = 1.0  # id 2 and the missing id of "user"
    expected[10 + 5], expected[10 + 7] = 0.25, 0.75
    np.testing.assert_allclose(logical, expected)


def test_initial_values_do_not_depend_on_the_number_of_shards() -> None:
    tables = [TableConfig("a", 9000, 3, 0.1), TableConfig("b", 500, 3, 2.0)]
    for init, bound in (("normal", 6.0), ("uniform", 1.0)):
        reference = ShardedEmbedding(tables, [], sets=2, seed=7, init=init)
        values = {name: reference.read_table(name) for name in ("a", "b")}
        for shards in (2, 3, 4):
            layer = ShardedEmbedding(tables, [], sets=2, seed=7, init=init, shards=shards)
            for name, expected in values.items():
                np.testing.assert_array_equal(layer.read_table(name), expected)
        std = 1.0 if init == "normal" else 1.0 / np.sqrt(3.0)
        for name, scale in (("a", 0.1), ("b", 2.0)):
            assert np.abs(values[name]).max() <= bound * scale
            np.testing.assert_allclose(values[name].std(), std * scale, rtol=0.05)
            assert abs(values[name].mean()) < 0.05 * scale
        other = ShardedEmbedding(tables, [], sets=2, seed=8, init=init)
        assert not np.array_equal(other.read_table("a"), values["a"])
        rows = values["a"].reshape(len(values["a"]), -1)
        assert len(np.unique(rows, axis=0)) == len(rows)  # no block repeats another


@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("column, bad", [(0, 9), (2, 23), (1, -2)])
def test_an_id_outside_its_table_is_refused(shards: int, column: int, bad: int) -> None:
    layer = ShardedEmbedding(TABLES, [f for f in FEATURES if f.combiner is None], shards=shards)
    ids = np.zeros((3, 3), np.int64)
    ids[1, column] = bad
    with pytest.raises(tf.errors.InvalidArgumentError, match="outside"):
        tf.function(layer)(tf.constant(ids))


@pytest.mark.parametrize("bad", [6, -2])
def test_an_id_outside_its_table_is_refused_in_a_bag(bad: int) -> None:
    layer = ShardedEmbedding(TABLES, FEATURES[1:2] + FEATURES[5:])
    bags = {"seen": (ragged([[22]], tf.int64), None), "tags": (ragged([[0, bad]], tf.int64), None)}
    with pytest.raises(tf.errors.InvalidArgumentError, match="outside"):
        layer(tf.zeros((1, 0), tf.int64), bags)


def test_ids_and_weights_of_a_bag_must_have_the_same_lengths() -> None:
    layer = ShardedEmbedding(TABLES, FEATURES[1:2])
    bags = {"seen": (ragged([[1, 2], [3]], tf.int64), ragged([[1.0], [1.0, 1.0]], tf.float32))}
    with pytest.raises(tf.errors.InvalidArgumentError, match="ids and weights differ"):
        layer(tf.zeros((2, 0), tf.int64), bags)


def test_calls_that_do_not_match_the_features_are_refused() -> None:
    layer = ShardedEmbedding(TABLES, FEATURES[:2])
    with pytest.raises(ValueError, match="seen"):
        layer(tf.zeros((1, 1), tf.int64))
    with pytest.raises(ValueError, match="1 columns"):
        layer(tf.zeros((1, 2), tf.int64), {"seen": (ragged([[1]], tf.int64), None)})


def test_output_follows_the_mixed_precision_policy() -> None:
    tf_keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        layer = ShardedEmbedding(TABLES, FEATURES[:1])
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    assert layer(tf.zeros((2, 1), tf.int64))[4].dtype == tf.bfloat16
    assert layer.parts("4")[0].dtype == tf.float32


@pytest.mark.parametrize("shards", [1, 3])
def test_tables_are_read_back_by_id(shards: int) -> None:
    layer = ShardedEmbedding(TABLES, FEATURES, shards=shards, sets=2)
    tables = fill_randomly(layer)
    for name, values in tables.items():
        np.testing.assert_array_equal(layer.read_table(name), values)
    slot = layer.slot_like("slot", "4", 3, 0.25)
    assert slot.shape == (34, 3)
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    layer.write_rows("item", 21, rows, slot)
    np.testing.assert_array_equal(layer.read_rows("item", 20, 24, slot)[1:3], rows)
    np.testing.assert_array_equal(layer.read_rows("item", 23, 24, slot), np.full((1, 3), 0.25))
    np.testing.assert_array_equal(layer.read_rows("user", 0, 10, slot), np.full((10, 3), 0.25))
    with pytest.raises(ValueError, match="takes values of shape"):
        layer.write_table("item", tables["user"])


@pytest.mark.parametrize(
    "tables, features, options, message",
    [
        ([], [], {}, "at least one table"),
        ([TABLES[0], TABLES[0]], [], {}, "unique"),
        (TABLES, [FEATURES[0], FEATURES[0]], {}, "unique"),
        (TABLES, [EmbeddedFeature("x", "itme")], {}, "Did you mean 'item'"),
        (TABLES, [EmbeddedFeature("x", "item", "last")], {}, "combiner"),  # type: ignore[arg-type]
        ([TableConfig("a", 0, 4)], [], {}, "at least one row"),
        (TABLES, [], {"shards": 0}, "at least one shard"),
        (TABLES, [], {"init": "zeros"}, "initial distribution"),
    ],
)
def test_bad_layouts_are_refused(tables, features, options, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ShardedEmbedding(tables, features, **options)


def test_manifest_and_config_rebuild_the_layer() -> None:
    layer = ShardedEmbedding(TABLES, FEATURES, shards=2, sets=2, seed=5, name="upstream")
    manifest = json.loads(json.dumps(layer.manifest()))
    item = manifest["tables"]["item"]
    assert (item["dim"], item["offset"], item["rows"], item["fused"]) == (4, 10, 23, "4")
    for again in (
        ShardedEmbedding.from_manifest(manifest),
        ShardedEmbedding.from_config(json.loads(json.dumps(layer.get_config()))),
    ):
        assert again.manifest() == layer.manifest()
        np.testing.assert_array_equal(again.read_table("item"), layer.read_table("item"))
    assert len(ShardedEmbedding.from_manifest(manifest, shards=1).parts("4")) == 1
    manifest["spread"]["4"]["shift"] += 1
    with pytest.raises(UserError, match="spread"):
        ShardedEmbedding.from_manifest(manifest)


class Scorer(tf_keras.Model):
    """A model as the library's: one embedding layer and one dense layer."""

    def __init__(self, shards: int) -> None:
        super().__init__(name="scorer")
        self.embeddings = ShardedEmbedding(TABLES, FEATURES, shards=shards, sets=2)
        self.head = tf_keras.layers.Dense(1, name="head")

    def call(self, inputs: dict) -> tf.Tensor:
        fields = self.embeddings(inputs["ids"], inputs["bags"])
        size = tf.shape(inputs["ids"])[0]
        flat = [
            tf.reshape(fields[d], [size, len(self.embeddings.fields(d)) * 2 * d]) for d in (4, 2)
        ]
        return self.head(tf.concat(flat, axis=1))[:, 0]  # (B,)


def example() -> dict:
    bags = {
        "seen": ([[1, 2], [], [22]], None),
        "liked": ([[4], [3, -1], []], [[0.5], [1.0, 2.0], []]),
        "tags": ([[0, 5], [1], []], None),
    }
    ids = tf.constant([[1, 2, 3], [-1, -1, -1], [8, 5, 22]], tf.int64)
    return {"ids": ids, "bags": as_bags(bags)}


@pytest.mark.parametrize("shards", [1, 3])
def test_model_tracks_every_part_once(shards: int, tmp_path: Path) -> None:
    model = Scorer(shards)
    model(example())
    assert len(model.trainable_variables) == 2 * shards + 2
    assert len(model.weights) == 2 * shards + 2
    saved = tf.train.Checkpoint(model=model).save(str(tmp_path / "ckpt"))
    shapes = [shape for key, shape in tf.train.list_variables(saved) if "embeddings" in key]
    assert sorted(shapes) == [[7, 4], [34, 8]]  # merged, and stored once


@pytest.mark.parametrize("shards", [1, 3])
def test_export_holds_merged_tables_and_scores_alike(shards: int, tmp_path: Path) -> None:
    trained = Scorer(shards)
    fill_randomly(trained.embeddings)
    expected = trained(example()).numpy()
    saved = tf.train.Checkpoint(model=trained).write(str(tmp_path / "ckpt"))
    model = Scorer(1)  # exports are written from unsharded tables
    model(example())
    tf.train.Checkpoint(model=model).read(saved).assert_consumed()

    def serve(ids: tf.Tensor, seen: tf.RaggedTensor, splits: tf.Tensor) -> dict:
        bag = tf.RaggedTensor.from_row_splits(seen, splits)
        liked = example()["bags"]["liked"]
        bags = {"seen": (bag, None), "liked": liked, "tags": example()["bags"]["tags"]}
        return {"score": model({"ids": ids, "bags": bags})}

    archive = tf_keras.export.ExportArchive()
    archive.track(model)
    signature = [
        tf.TensorSpec((None, 3), tf.int64, name="ids"),
        tf.TensorSpec((None,), tf.int64, name="seen"),
        tf.TensorSpec((None,), tf.int64, name="splits"),
    ]
    archive.add_endpoint("serve", serve, input_signature=signature)
    archive.write_out(str(tmp_path / "model"))
    shapes = [
        shape
        for key, shape in tf.train.list_variables(str(tmp_path / "model/variables/variables"))
        if shape and shape[0] in (7, 34)
    ]
    assert sorted(shapes) == [[7, 4], [34, 8]]
    seen = example()["bags"]["seen"][0]
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    found = loaded.signatures["serving_default"](
        ids=example()["ids"], seen=seen.flat_values, splits=seen.row_splits
    )
    fields = trained.embeddings(example()["ids"], example()["bags"])
    largest = max(np.abs(values).max() for values in fields.values())
    size = largest * np.abs(trained.head.kernel).sum()
    assert_close(found["score"], expected, terms=trained.head.kernel.shape[0] + 4, magnitude=size)
