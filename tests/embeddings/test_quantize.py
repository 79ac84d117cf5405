"""Tables of 8-bit integers: their rounding, and the layer over them against NumPy."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.embeddings.hashing import Hashing
from lfm4ads_tf.embeddings.quantize import LEVELS, QuantizedTable, quantized
from lfm4ads_tf.embeddings.storage import read_tables, write_tables
from lfm4ads_tf.embeddings.table import EmbeddedFeature, ShardedEmbedding, TableConfig
from lfm4ads_tf.embeddings.transplant import transplant
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.optim.hybrid_optimizer import HybridOptimizer
from lfm4ads_tf.strict import parse
from tests.embeddings.hashed_rows import hashed_rows
from tests.rounding import assert_close

TINY = float(np.finfo(np.float32).tiny)  # TensorFlow computes with zeros below it


@st.composite
def rows_and_sets(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    rows, sets, dim = (draw(st.integers(1, most)) for most in (4, 3, 5))
    element = st.floats(-(2.0**100), 2.0**100, width=32) | st.floats(-1.0, 1.0, width=32)
    values = draw(hnp.arrays(np.float32, (rows, sets * dim), elements=element))
    zero = draw(hnp.arrays(bool, (rows, sets)))
    return np.where(np.repeat(zero, dim, axis=1), np.float32(0), values), sets


def by_set(values: np.ndarray, sets: int) -> np.ndarray:
    """(N, K*D) -> (N, K, D) float64."""
    return values.astype(np.float64).reshape(len(values), sets, -1)


@settings(max_examples=300, deadline=None)
@given(rows_and_sets())
def test_an_element_is_half_a_scale_off_at_most(drawn: tuple[np.ndarray, int]) -> None:
    values, sets = drawn
    codes, scales = quantized(values, sets)
    assert codes.dtype == np.int8 and codes.shape == values.shape
    assert scales.dtype == np.float32 and scales.shape == (len(values), sets)
    exact, largest = by_set(values, sets), np.abs(by_set(values, sets)).max(axis=2)
    wanted = np.where(largest > 0, np.maximum(largest / LEVELS, TINY), 0.0)
    np.testing.assert_allclose(scales, wanted, rtol=1e-7)
    kept = by_set(codes, sets) * scales[:, :, np.newaxis].astype(np.float64)
    assert np.all(np.abs(exact - kept) <= scales[:, :, np.newaxis] / 2 * (1 + 1e-12))
    assert not codes[values == 0].any()
    assert np.abs(by_set(codes, sets)).max() <= LEVELS
    mirrored, same = quantized(-values, sets)
    np.testing.assert_array_equal(mirrored, -codes)
    np.testing.assert_array_equal(same, scales)


@settings(max_examples=50, deadline=None)
@given(rows_and_sets())
def test_what_is_read_is_the_product_in_float32(drawn: tuple[np.ndarray, int]) -> None:
    values, sets = drawn
    table = QuantizedTable("t", len(values) + 2, sets, values.shape[1] // sets)
    places = np.arange(len(values))[::-1] + 1
    table.write_rows(places, values)
    codes, scales = quantized(values, sets)
    expected = codes.reshape(len(values), sets, -1) * scales[:, :, np.newaxis]
    found = table.gather(tf.constant(np.append(places, 0)))
    assert found.dtype == tf.float32
    np.testing.assert_array_equal(found[:-1], expected.reshape(values.shape))
    np.testing.assert_array_equal(found[-1], np.zeros(values.shape[1]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_and_nothing_written(bad: float) -> None:
    layer = made(TABLES)
    before = layer.read_table("item")
    values = np.ones((3, 8), np.float32)
    values[1, 2] = bad
    with pytest.raises(UserError, match=r"not finite[\s\S]*Received: (nan|-?inf)[\s\S]*Fix"):
        layer.write_rows("item", 0, values)
    np.testing.assert_array_equal(layer.read_table("item"), before)


def test_what_float16_cannot_hold_is_refused() -> None:
    layer = made([TableConfig("a", 5, 4, storage="float16")], [EmbeddedFeature("a", "a")])
    layer.write_rows("a", 0, np.full((1, 8), 65519, np.float32))
    assert layer.read_rows("a", 0, 1).max() == 65504
    with pytest.raises(UserError, match="too large for a table that is kept as float16"):
        layer.write_rows("a", 0, np.full((1, 8), 65520, np.float32))


# -- the layer -------------------------------------------------------------------------------------

TABLES = [
    TableConfig("user", 9, 4, 1.0, "int8"),
    TableConfig("item", 23, 4, 0.5, "int8"),
    TableConfig("tag", 6, 3, 1.0, "int8"),
    TableConfig("words", 90, 4, 1.0, "int8", hashing=Hashing("quotient_remainder", 10)),
    TableConfig("pairs", 500, 3, 1.0, "int8", hashing=Hashing("double", 7)),
    TableConfig("plain", 5, 4),
]
FEATURES = [
    EmbeddedFeature("user_id", "user"),
    EmbeddedFeature("word", "words"),
    EmbeddedFeature("seen", "item", "mean"),
    EmbeddedFeature("tag", "tag"),
    EmbeddedFeature("item_id", "item"),
    EmbeddedFeature("liked", "item", "sum"),
    EmbeddedFeature("best", "item", "max"),
    EmbeddedFeature("read", "words", "mean"),
    EmbeddedFeature("pair", "pairs"),
    EmbeddedFeature("plain", "plain"),
]


def made(
    tables: list[TableConfig], features: list[EmbeddedFeature] = FEATURES, **options: Any
) -> ShardedEmbedding:
    return ShardedEmbedding(tables, features, **{"sets": 2, **options})


def embedding(layer: ShardedEmbedding, table: str, id_: int) -> np.ndarray:
    """The vectors (K, D) of an id, worked out from codes and scales."""
    config, fused = layer.layout.table(table), layer.layout.home(table)
    if id_ < 0:
        rows = [config.stored_rows]
    elif config.hashing is None:
        rows = [id_]
    else:
        rows = [int(r[0]) for r in hashed_rows(config.hashing, np.array([id_]))]
    found = np.zeros((layer.sets, config.dim), np.float64)
    for row in rows:
        place = int(fused.spread.forward(np.array([fused.offsets[table] + row]))[0])
        (part,) = layer.parts(fused.name)
        if config.storage == "int8":
            codes = part.codes.numpy()[place].reshape(layer.sets, config.dim).astype(np.float64)
            found += codes * part.scales.numpy()[place][:, np.newaxis]
        else:
            found += part.numpy()[place].reshape(layer.sets, config.dim)
    return found


@st.composite
def batches(draw: st.DrawFn) -> tuple[np.ndarray, dict[str, list[list[int]]]]:
    size = draw(st.integers(1, 4))
    rows = {table.name: table.rows for table in TABLES}
    one = {f.name: st.integers(-1, rows[f.table] - 1) for f in FEATURES}
    singles = [f.name for f in FEATURES if f.combiner is None]
    ids = [[draw(one[name]) for name in singles] for _ in range(size)]
    bags = {
        f.name: [draw(st.lists(one[f.name], max_size=4)) for _ in range(size)]
        for f in FEATURES
        if f.combiner is not None
    }
    return np.array(ids, np.int64), bags


def ragged(rows: list[list[int]]) -> tf.RaggedTensor:
    flat = tf.constant([x for row in rows for x in row], tf.int64)
    return tf.RaggedTensor.from_row_lengths(flat, tf.constant([len(r) for r in rows], tf.int64))


@pytest.mark.parametrize("sets", [1, 2])
def test_the_layer_equals_numpy(sets: int) -> None:
    layer = made(TABLES, sets=sets)
    pool = {"sum": np.sum, "mean": np.mean, "max": np.max}
    largest = max(np.abs(layer.read_table(table.name)).max() for table in TABLES)

    @settings(max_examples=15, deadline=None)
    @given(batch=batches())
    def check(batch: tuple[np.ndarray, dict[str, list[list[int]]]]) -> None:
        ids, bags = batch
        found = layer(tf.constant(ids), {n: (ragged(rows), None) for n, rows in bags.items()})
        for dim in (4, 3):
            for place, name in enumerate(layer.fields(dim)):
                feature = next(f for f in FEATURES if f.name == name)
                for b in range(len(ids)):
                    if feature.combiner is None:
                        id_ = int(ids[b, layer.single_features.index(name)])
                        expected = embedding(layer, feature.table, id_)
                    else:
                        kept = [i for i in bags[name][b] if i >= 0]
                        vectors = [embedding(layer, feature.table, i) for i in kept]
                        expected = (
                            pool[feature.combiner](vectors, axis=0)
                            if kept
                            else np.zeros((sets, dim))
                        )
                    size = 4 * largest  # of at most four vectors
                    assert_close(found[dim][b, place], expected, terms=8, magnitude=size, what=name)
        values, mask = layer.sequence("seen", ragged(bags["seen"]), 3)
        for b, row in enumerate(bags["seen"]):
            last = [embedding(layer, "item", i) for i in row[-3:]]
            assert mask[b].numpy().tolist() == [k < len(last) for k in range(3)]
            wanted = np.array([*last, *[np.zeros((sets, 4))] * (3 - len(last))])
            assert_close(values[b], wanted, terms=8, magnitude=largest)

    check()


def test_rows_are_quantised_as_they_are_written() -> None:
    """Through `transplant` too, from shards of another storage, and by slices."""
    wide = [replace(table, storage="float32") for table in TABLES]
    source, target = made(wide, shards=3, seed=5), made(TABLES, seed=9)
    assert transplant(source, target) == tuple(table.name for table in TABLES)
    for table in TABLES:
        values = source.read_rows(table.name, 0, table.stored_rows + 1)
        expected = values
        if table.storage == "int8":
            codes, scales = quantized(values, 2)
            expected = codes.reshape(len(values), 2, -1) * scales[:, :, np.newaxis]
        found = target.read_rows(table.name, 0, table.stored_rows + 1)
        np.testing.assert_array_equal(found, expected.reshape(values.shape))


@pytest.mark.parametrize(("sets", "dim"), [(1, 4), (1, 32), (3, 16)])
def test_the_size_of_a_table(sets: int, dim: int) -> None:
    def size(storage: Any) -> int:
        tables = [TableConfig("a", 99, dim, storage=storage), TableConfig("b", 12, dim, 1, storage)]
        layer = made(tables, [EmbeddedFeature("a", "a"), EmbeddedFeature("b", "b")], sets=sets)
        return sum(int(np.prod(v.shape)) * v.dtype.size for v in layer.variables)

    assert size("float32") == (100 + 13) * sets * dim * 4
    assert size("int8") * 4 * dim == size("float32") * (dim + 4)
    assert size("float16") * 2 == size("float32")


def test_an_export_holds_codes_and_scales_and_stock_ops(tmp_path: Path) -> None:
    layer = made(TABLES)
    assert [v.dtype for v in layer.trainable_variables] == [tf.float32]  # the table `plain`
    ids = tf.constant([[3, 89, 0, 22, 400, 4], [-1, -1, -1, -1, -1, -1]], tf.int64)
    bags = {f.name: (ragged([[1], []]), None) for f in FEATURES if f.combiner is not None}
    expected = layer(ids, bags)
    archive = tf_keras.export.ExportArchive()
    archive.track(layer)

    def serve(ids: tf.Tensor) -> dict[str, tf.Tensor]:
        return {str(dim): values for dim, values in layer(ids, bags).items()}

    archive.add_endpoint("serve", serve, [tf.TensorSpec([2, 6], tf.int64)])
    archive.write_out(str(tmp_path))
    restored = tf.saved_model.load(str(tmp_path))
    loaded = restored.serve(ids)
    for dim, values in expected.items():
        np.testing.assert_array_equal(loaded[str(dim)], values)
    stored = dict(tf.train.list_variables(str(tmp_path / "variables" / "variables")))
    shapes = sorted(shape for name, shape in stored.items() if not name.startswith("_CHECKPOINT"))
    wide, narrow = 10 + 24 + (10 + 9 + 1), 7 + (7 + 1)
    held = [[wide, 8], [wide, 2], [narrow, 6], [narrow, 2], [6, 8]]
    assert shapes == sorted(held)  # codes and scales by width, and the float32 table
    graph = saved_model_pb2.SavedModel.FromString((tmp_path / "saved_model.pb").read_bytes())
    functions = [
        {node.op for node in function.node_def}
        for function in graph.meta_graphs[0].graph_def.library.function
    ]
    ops = set.union(*[f for f in functions if not f & {"SaveV2", "RestoreV2"}])
    assert {"ResourceGather", "Cast", "Mul"} <= ops
    assert "ReadVariableOp" not in ops  # a table read as a whole would be widened as a whole
    assert not [op for op in ops if op_def_registry.get(op) is None and "inference" not in op]


# -- what int8 is not for --------------------------------------------------------------------------


def test_int8_tables_are_not_trained() -> None:
    with pytest.raises(UserError, match=r"one shard[\s\S]*shards=2"):
        made(TABLES, shards=2)
    with pytest.raises(UserError, match=r"cannot be trained[\s\S]*user, item, words"):
        HybridOptimizer(0.1, 0.1).build([made(TABLES)], [])
    for raw in ({"storage": "int8"}, {"tables": {"user": {"storage": "int8"}}}):
        with pytest.raises(UserError, match=r"storage: int8 tables cannot be trained; .*export"):
            parse(EmbeddingsConfig, raw, source="config")
    served = EmbeddingsConfig(shards=4, storage="bfloat16").served(1, "int8")
    assert (served.shards, served.storage) == (1, "int8")


def test_manifest_and_files_of_an_int8_layer() -> None:
    layer = made(TABLES, seed=3)
    again = ShardedEmbedding.from_manifest(layer.manifest(), seed=8)
    with tempfile.TemporaryDirectory() as folder:
        write_tables(Path(folder), layer)
        read_tables(Path(folder), again)
        assert os.listdir(folder)
    for table in TABLES:  # written as float32; requantised to the same codes
        np.testing.assert_allclose(
            again.read_table(table.name), layer.read_table(table.name), rtol=1e-6
        )
