"""Several hashes per id: the rows, the lookups and the gradients, against NumPy."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from lfm4ads_tf.embeddings.hashing import Hashing
from lfm4ads_tf.embeddings.table import EmbeddedFeature, ShardedEmbedding, TableConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.optim.hybrid_optimizer import HybridOptimizer
from tests.embeddings.hashed_rows import hashed_rows
from tests.rounding import assert_close

IDS = 1000
KINDS = {"double": Hashing("double", 37), "quotient_remainder": Hashing("quotient_remainder", 32)}
both_kinds = pytest.mark.parametrize("kind", KINDS)


@settings(max_examples=100, deadline=None)
@given(
    kind=st.sampled_from(list(KINDS)),
    buckets=st.integers(1, 2**31),
    ids=st.lists(st.integers(0, 2**62), max_size=20),
)
def test_rows_in_a_graph_equal_rows_in_numpy(kind: str, buckets: int, ids: list[int]) -> None:
    hashing = Hashing(kind, buckets)  # type: ignore[arg-type]
    array = np.array(ids, np.int64)
    found = hashing.rows(tf.constant(array))
    for mine, expected in zip(found, hashed_rows(hashing, array), strict=True):
        np.testing.assert_array_equal(mine, expected)
        assert mine.dtype == tf.int64 and np.all(expected >= 0)
        if kind == "double":
            assert np.all(expected < buckets)


@settings(max_examples=50, deadline=None)
@given(ids=st.integers(1, 3000), buckets=st.integers(1, 4000))
def test_quotient_and_remainder_name_an_id(ids: int, buckets: int) -> None:
    hashing = Hashing("quotient_remainder", buckets)
    first, second = (r.numpy() for r in hashing.rows(tf.range(ids, dtype=tf.int64)))
    assert len(set(zip(first.tolist(), second.tolist(), strict=True))) == ids
    assert first.max() < buckets <= second.min()  # two parts of the table
    assert second.max() < hashing.stored_rows(ids) == buckets + math.ceil(ids / buckets)


def test_the_root_of_the_ids_stores_the_fewest_rows() -> None:
    sizes = {b: Hashing("quotient_remainder", b).stored_rows(10_000) for b in range(1, 10_001)}
    assert min(sizes.values()) == sizes[100] == 200


@pytest.mark.parametrize("buckets", [64, 100, 997])
@pytest.mark.parametrize("stride", [1, 64, 1 << 20])
def test_double_hashing_spreads_ids_over_rows_and_pairs(buckets: int, stride: int) -> None:
    """Uniform by chi-square at 1e-6, both hashes and their pairs, whatever the ids' pattern."""
    count = 200_000
    ids = tf.range(count, dtype=tf.int64) * stride
    first, second = (rows.numpy() for rows in Hashing("double", buckets).rows(ids))
    coarse = min(buckets, 64)
    pairs = (first * coarse // buckets) * coarse + second * coarse // buckets
    # cells of the pairs are not equally wide where 64 does not divide the buckets
    width = np.bincount(np.arange(buckets) * coarse // buckets)
    shares = {
        "first": (first, np.full(buckets, 1 / buckets)),
        "second": (second, np.full(buckets, 1 / buckets)),
        "pairs": (pairs, np.outer(width, width).ravel() / buckets**2),
    }
    for name, (cells, share) in shares.items():
        seen = np.bincount(cells, minlength=len(share))
        statistic = np.sum((seen - count * share) ** 2 / (count * share))
        assert statistic < chi2.ppf(1 - 1e-6, len(share) - 1), name
        assert statistic > chi2.ppf(1e-6, len(share) - 1) or stride == 1, name


def layer_of(
    hashing: Hashing, combiner: str | None, shards: int = 1, sets: int = 2
) -> ShardedEmbedding:
    """A hashed table between two plain ones, and features of every table."""
    layer = ShardedEmbedding(
        [
            TableConfig("before", 9, 3, 1.0),
            TableConfig("hashed", IDS, 3, 1.0, hashing=hashing),
            TableConfig("after", 5, 3, 1.0),
        ],
        [
            EmbeddedFeature("x", "hashed", combiner),  # type: ignore[arg-type]
            EmbeddedFeature("before", "before", combiner),  # type: ignore[arg-type]
            EmbeddedFeature("y", "hashed", combiner),  # type: ignore[arg-type]
            EmbeddedFeature("after", "after", combiner),  # type: ignore[arg-type]
        ],
        shards=shards,
        sets=sets,
    )
    return layer


def embeddings(layer: ShardedEmbedding) -> dict[str, np.ndarray]:
    """Table -> e(id) by id from the stored rows, the missing id's last, (ids + 1, K, D)."""
    found = {}
    for name, table in layer.layout.tables.items():
        rows = layer.read_table(name).astype(np.float64)
        if table.hashing is not None:
            first, second = hashed_rows(table.hashing, np.arange(table.rows))
            rows = np.concatenate([rows[first] + rows[second], rows[-1:]])
        found[name] = rows
    return found


@both_kinds
@pytest.mark.parametrize("shards", [1, 3])
def test_single_lookups_equal_numpy(kind: str, shards: int) -> None:
    layer = layer_of(KINDS[kind], None, shards)
    rng = np.random.default_rng(0)
    ids = np.stack([rng.integers(-1, n, 40) for n in (IDS, 9, IDS, 5)], axis=1)
    ids[:3] = -1
    found = tf.function(layer)(tf.constant(ids))[3]
    tables = ("hashed", "before", "hashed", "after")
    known = embeddings(layer)
    expected = [[known[t][i] for t, i in zip(tables, row, strict=True)] for row in ids]
    assert_close(found, expected, terms=8)


@both_kinds
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("combiner", ["mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
def test_pooled_lookups_equal_numpy(kind: str, shards: int, combiner: str, weighted: bool) -> None:
    layer = layer_of(KINDS[kind], combiner, shards)
    rng = np.random.default_rng(1)
    size, tables = 30, {"x": "hashed", "before": "before", "y": "hashed", "after": "after"}
    known = embeddings(layer)
    bags, expected = {}, np.zeros((size, 4, 2, 3))
    for f, (name, table) in enumerate(tables.items()):
        lengths = rng.integers(0, 5, size)
        lengths[0] = 0
        rows = layer.layout.table(table).rows
        values = rng.integers(-1, rows, lengths.sum())
        weights = rng.choice([0.0, 0.5, 2.0], lengths.sum()) if weighted else np.ones(len(values))
        ids = tf.RaggedTensor.from_row_lengths(values, lengths)
        bags[name] = ids, ids.with_values(tf.constant(weights)) if weighted else None
        for b, (low, high) in enumerate(zip(ids.row_starts(), ids.row_limits(), strict=True)):
            total = 0.0
            for i, w in zip(values[low:high], weights[low:high], strict=True):
                if i >= 0:
                    expected[b, f] += w * known[table][i]
                    total += w
            if combiner == "mean":
                expected[b, f] = expected[b, f] / total if total else 0.0
    found = tf.function(layer)(tf.zeros([size, 0], tf.int64), bags)[3]
    assert_close(found, expected, terms=8)


@both_kinds
@pytest.mark.parametrize("combiner", [None, "sum", "mean"])
@pytest.mark.parametrize("shards", [1, 3])
def test_gradients_reach_both_rows_and_no_other(
    kind: str, combiner: str | None, shards: int
) -> None:
    layer = layer_of(KINDS[kind], combiner, shards, sets=1)
    used = [17, 900, 17, -1]

    def fields() -> tf.Tensor:
        if combiner is None:
            ids = np.full((4, 4), -1)
            ids[:, 0] = used
            return layer(tf.constant(ids))[3][:, :1]
        empty = tf.RaggedTensor.from_row_lengths(tf.zeros([0], tf.int64), [0])
        bags = {name: (empty, None) for name in layer.bag_features}
        bags["x"] = tf.RaggedTensor.from_row_lengths(tf.constant(used, tf.int64), [4]), None
        return layer(tf.zeros([1, 0], tf.int64), bags)[3][:, :1]

    before = layer.read_table("hashed")[:, 0]
    optimizer = HybridOptimizer(1.0, 1.0)
    optimizer.build([layer], [])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(fields())
    gradients = tape.gradient(loss, layer.trainable_variables)
    dense = np.concatenate([tf.convert_to_tensor(g).numpy() for g in gradients])
    fused = layer.layout.fused["3"]
    stored = layer.layout.table("hashed").stored_rows
    mine = dense[fused.spread.forward(np.arange(stored + 1) + fused.offsets["hashed"])]
    expected = np.zeros((stored + 1, 3))
    for i in used:
        if i >= 0:
            weight = 1 / 3 if combiner == "mean" else 1.0
            for rows in hashed_rows(KINDS[kind], np.array([i])):
                expected[rows[0]] += weight
    expected[-1] = 1.0 if combiner is None else 0.0  # missing: its own row once, or dropped
    assert_close(mine, expected, terms=8)

    optimizer.apply_gradients(zip(gradients, layer.trainable_variables, strict=True))
    changed = np.any(layer.read_table("hashed")[:, 0] != before, axis=1)
    np.testing.assert_array_equal(changed, expected.any(axis=1))


@both_kinds
def test_ids_are_checked_against_the_ids_not_the_rows(kind: str) -> None:
    layer = layer_of(KINDS[kind], None)
    assert layer.layout.table("hashed").stored_rows < IDS
    layer(tf.constant([[IDS - 1, 0, IDS - 1, 0]], tf.int64))
    with pytest.raises(tf.errors.InvalidArgumentError, match="outside"):
        layer(tf.constant([[IDS, 0, 0, 0]], tf.int64))


@both_kinds
def test_an_export_holds_the_few_rows_and_looks_up_alike(kind: str, tmp_path: Path) -> None:
    layer = layer_of(KINDS[kind], None)
    layer(tf.zeros([1, 4], tf.int64))
    archive = tf_keras.export.ExportArchive()
    archive.track(layer)
    signature = [tf.TensorSpec([None, 4], tf.int64, name="ids")]
    archive.add_endpoint("serve", lambda ids: {"fields": layer(ids)[3]}, input_signature=signature)
    archive.write_out(str(tmp_path / "model"))
    stored = {"double": 37, "quotient_remainder": 32 + 32}[kind]
    rows = (9 + 1) + (stored + 1) + (5 + 1)
    variables = tf.train.list_variables(str(tmp_path / "model/variables/variables"))
    shapes = {tuple(shape) for _, shape in variables if len(shape) == 2}
    assert shapes == {(rows, 6)}
    ids = tf.constant([[999, 8, 0, -1], [-1, -1, 500, 4]], tf.int64)
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    found = loaded.signatures["serving_default"](ids=ids)["fields"]
    assert_close(found, layer(ids)[3], terms=8)


def test_what_hashing_cannot_do_is_refused() -> None:
    with pytest.raises(UserError, match="Unknown hashing"):
        Hashing("triple", 4)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="at least one bucket"):
        Hashing("double", 0)
    with pytest.raises(UserError, match="maximum over a table with several hashes"):
        layer_of(KINDS["double"], "max")
