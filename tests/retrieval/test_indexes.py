"""Exact and approximate indexes against NumPy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.retrieval.coarse import assign, kmeans
from lfm4ads_tf.retrieval.exact import ExactIndex
from lfm4ads_tf.retrieval.index import Index
from lfm4ads_tf.retrieval.inverted_index import InvertedIndex
from lfm4ads_tf.retrieval.partition import Partition
from tests.rounding import assert_close, room

pytestmark = pytest.mark.processor


def keys_of(count: int, first: int = 0) -> np.ndarray:
    return np.array([f"ad {k}" for k in range(first, first + count)])


def world(items: int, width: int, seed: int, queries: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Clustered items and queries that differ in some directions more than in others."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(12, width)) * 2
    vectors = centers[rng.integers(0, 12, items)] + rng.normal(size=(items, width)) * 0.5
    asked = rng.normal(size=(queries, width)) * np.linspace(2, 0.1, width)
    return vectors.astype(np.float32), asked.astype(np.float32)


def oracle(
    keys: np.ndarray, vectors: np.ndarray, queries: np.ndarray, k: int, hidden: list[set[str]]
) -> list[list[str]]:
    """The k best allowed keys of each query."""
    found = []
    for query, gone in zip(queries.astype(float), hidden, strict=True):
        order = np.argsort(-(vectors.astype(float) @ query), kind="stable")
        found.append([keys[i] for i in order if keys[i] not in gone][:k])
    return found


def agree(
    found: list[list[str]], expected: list[list[str]], products: list[dict[str, float]]
) -> None:
    """The same items, but for the order of products that float32 cannot tell apart."""
    for ours, theirs, product in zip(found, expected, products, strict=True):
        assert len(set(ours)) == len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            largest = max(map(abs, product.values()))
            assert a == b or abs(product[a] - product[b]) <= room(16, largest)


def answers(index: Index, queries: np.ndarray, excluded: list[list[str]] | None = None) -> list:
    text = None
    if excluded is not None:
        most = max(1, *(len(e) for e in excluded))
        text = tf.constant([e + [""] * (most - len(e)) for e in excluded])
    ids, scores = index(tf.constant(queries), text)
    assert ids.shape == scores.shape == (len(queries), index.k)
    padded = ids.numpy() == b""
    assert np.array_equal(padded, np.isneginf(scores.numpy()))
    assert (np.diff(np.nan_to_num(scores.numpy(), neginf=-1e30), axis=1) <= 0).all()
    return [[key.decode() for key in row if key] for row in ids.numpy()]


def test_exact_is_the_sorted_inner_product() -> None:
    vectors, queries = world(300, 8, 0)
    index = ExactIndex(keys_of(300), vectors, k=20)
    ids, scores = index(tf.constant(queries))
    expected = queries.astype(float) @ vectors.T.astype(float)
    assert answers(index, queries) == oracle(keys_of(300), vectors, queries, 20, [set()] * 7)
    assert_close(scores, -np.sort(-expected, axis=1)[:, :20], terms=16)


@settings(max_examples=20, deadline=None)
@given(
    items=st.integers(1, 120),
    lists=st.integers(1, 12),
    k=st.integers(1, 40),
    seed=st.integers(0, 99),
    share=st.floats(0, 1),
)
def test_all_lists_probed_and_filters_equal_numpy(
    items: int, lists: int, k: int, seed: int, share: float
) -> None:
    """Both indexes; no ineligible or excluded item is ever returned, the k best others all are."""
    vectors, queries = world(items, 6, seed, queries=4)
    keys = keys_of(items)
    rng = np.random.default_rng(seed)
    ineligible = keys[rng.random(items) < share]
    excluded = [[str(x) for x in rng.choice(keys, min(items, n))] for n in (0, 1, 3, 9)]
    hidden: list[set[str]] = [{*ineligible.tolist(), *one} for one in excluded]
    expected = oracle(keys, vectors, queries, k, hidden)
    products = [dict(zip(keys.tolist(), vectors @ q, strict=True)) for q in queries]
    partition = Partition.fit(vectors, queries, lists=min(lists, items), seed=seed)
    for index in (
        ExactIndex(keys, vectors, k=k),
        InvertedIndex(keys, vectors, partition, k=k),
    ):
        index.set_ineligible(ineligible)
        found = answers(index, queries, excluded)
        agree(found, expected, products)
        assert not any({*one} & gone for one, gone in zip(found, hidden, strict=True))
        index.set_ineligible(np.array([], str))
        free = oracle(keys, vectors, queries, k, [set()] * 4)
        agree(answers(index, queries), free, products)


def test_few_probes_find_most_and_tuning_meets_its_target() -> None:
    vectors, queries = world(6000, 16, 3, queries=400)
    keys = keys_of(6000)
    partition = Partition.fit(vectors, queries[200:], lists=155, seed=1)
    index = InvertedIndex(keys, vectors, partition, k=50)
    index = index.probing(None, queries[200:], recall=0.98)
    assert index.partition.probes < index.lists / 3
    exact = answers(ExactIndex(keys, vectors, k=50), queries[:200])
    found = answers(index, queries[:200])
    recall = np.mean([len({*a} & {*b}) / 50 for a, b in zip(exact, found, strict=True)])
    assert 0.96 < recall <= 1
    # the fewest: one probe less misses the target on the tuning queries
    fewer = index.probing(index.partition.probes - 1, queries, recall=1)
    exact = answers(ExactIndex(keys, vectors, k=50), queries[200:])
    found = answers(fewer, queries[200:])
    assert np.mean([len({*a} & {*b}) / 50 for a, b in zip(exact, found, strict=True)]) < 0.98


def test_refresh_equals_a_new_index_with_the_same_centroids() -> None:
    vectors, queries = world(580, 8, 5)
    vectors, more = vectors[:500], vectors[500:]
    keys = keys_of(500)
    index = InvertedIndex(keys, vectors, Partition.fit(vectors, lists=20), k=10)
    index = index.probing(4, queries, recall=1)
    rng = np.random.default_rng(1)
    changed = vectors.copy()
    changed[:30] += rng.normal(size=(30, 8)).astype(np.float32)
    later_keys = np.concatenate([keys[:450], keys_of(80, first=1000)])
    later = np.concatenate([changed[:450], more])
    fresh, report = index.refreshed(later_keys, later)
    anew = InvertedIndex(later_keys, later, index.partition, k=10)
    assert answers(fresh, queries) == answers(anew, queries)
    assert (report.added, report.removed, report.changed) == (80, 50, 30)
    assert not report.rebuild
    every = fresh.probing(20, queries, recall=1)
    assert answers(every, queries) == oracle(later_keys, later, queries, 10, [set()] * 7)
    _, unchanged = index.refreshed(keys, vectors)
    assert (unchanged.added, unchanged.removed, unchanged.changed, unchanged.moved) == (0, 0, 0, 0)
    _, away = index.refreshed(keys, vectors + 30)
    assert away.rebuild and away.distortion > 1.5


@settings(max_examples=30, deadline=None)
@given(items=st.integers(1, 200), lists=st.integers(1, 15), seed=st.integers(0, 50))
def test_lists_hold_every_item_once_within_their_capacity(
    items: int, lists: int, seed: int
) -> None:
    vectors, _ = world(items, 4, seed)
    vectors[: items // 2] = vectors[0]  # many equal vectors: one list cannot hold them
    lists = min(lists, items)
    centroids = kmeans(vectors, lists, seed=seed)
    capacity = -(-items // lists)
    chosen = assign(vectors, centroids, capacity).lists
    counts = np.bincount(chosen, minlength=lists)
    assert counts.sum() == items and counts.max() <= capacity
    distances = ((vectors[:, None] - centroids[None]) ** 2).sum(axis=2)
    roomy = assign(vectors, centroids, items)  # with room for all, the nearest one
    assert roomy.displaced == 0
    picked = distances[np.arange(items), roomy.lists]
    np.testing.assert_allclose(picked, distances.min(axis=1), rtol=1e-3, atol=1e-3)


def test_wrong_arguments_are_refused() -> None:
    vectors, _ = world(10, 4, 0)
    with pytest.raises(UserError, match="at least one item per list"):
        Partition.fit(vectors, lists=11)
    with pytest.raises(UserError, match="key of its own"):
        ExactIndex(np.array(["a"] * 10), vectors, k=3)
    with pytest.raises(UserError, match="at least one item"):
        ExactIndex(keys_of(10), vectors, k=0)
    with pytest.raises(UserError, match="do not fit the centroids"):
        InvertedIndex(keys_of(10), vectors[:, :2], Partition.fit(vectors, lists=2), k=3)
    with pytest.raises(UserError, match="finite vector"):
        ExactIndex(keys_of(10), vectors * np.nan, k=3)


_CLEAN = """
import json, sys
for package in ("lfm4ads_tf", "tf_keras", "keras", "tensorflow_recommenders"):
    sys.modules[package] = None
import numpy as np, tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry
queries, reports = tf.constant(np.load(sys.argv[1])), {}
for folder in sys.argv[2:]:
    raw = open(folder + "/saved_model.pb", "rb").read()
    graph = saved_model_pb2.SavedModel.FromString(raw).meta_graphs[0].graph_def
    own = {f.signature.name for f in graph.library.function}
    ops = {n.op for f in graph.library.function for n in f.node_def} | {n.op for n in graph.node}
    foreign = [op for op in ops - own if op_def_registry.get(op) is None or "PyFunc" in op]
    out = tf.saved_model.load(folder).signatures["serving_default"](queries=queries)
    ids = [[key.decode() for key in row] for row in out["ids"].numpy()]
    reports[folder] = {"foreign": foreign, "ids": ids, "bytes": len(raw)}
print(json.dumps(reports))
"""


@pytest.fixture(scope="module")
def saved_indexes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Index, Any]]:
    """An index of each kind, and what one process without our packages finds in its SavedModel."""
    folder = tmp_path_factory.mktemp("saved_indexes")
    vectors, queries = world(3000, 16, 2)
    keys = np.array([f"ü{k}" for k in range(3000)])
    partition = Partition.fit(vectors, queries)
    approximate = InvertedIndex(keys, vectors, partition, k=10)
    indexes: dict[str, Index] = {
        "exact": ExactIndex(keys, vectors, k=10),
        "approximate": approximate.probing(9, queries, recall=1),
    }
    for kind, index in indexes.items():
        index.set_ineligible(keys[:100])
        module = tf.Module()
        module.index = index
        spec = tf.TensorSpec([None, 16], tf.float32, name="queries")
        served = tf.function(
            lambda queries, index=index: dict(zip(("ids", "scores"), index(queries), strict=True)),
            input_signature=[spec],
        )
        tf.saved_model.save(module, str(folder / kind), signatures=served)
    np.save(folder / "queries.npy", queries)
    (folder / "clean.py").write_text(_CLEAN)
    done = subprocess.run(
        [sys.executable, "clean.py", "queries.npy", *indexes],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    reports = json.loads(done.stdout.splitlines()[-1])
    return {kind: (index, reports[kind]) for kind, index in indexes.items()}


@pytest.mark.parametrize("kind", ["exact", "approximate"])
def test_saved_model_runs_on_tensorflow_alone(kind: str, saved_indexes: Any) -> None:
    index, report = saved_indexes[kind]
    vectors, queries = world(3000, 16, 2)
    assert report["foreign"] == []
    assert report["ids"] == answers(index, queries)
    assert report["bytes"] < vectors.nbytes  # the items are variables, no constants of the graph


def test_partition_is_kept_in_a_file(tmp_path: Path) -> None:
    vectors, queries = world(200, 5, 0)
    partition = Partition.fit(vectors, queries, lists=7)
    partition.save(tmp_path / "partition.npz")
    read = Partition.load(tmp_path / "partition.npz")
    assert np.array_equal(read.centroids, partition.centroids)
    assert np.array_equal(read.metric, partition.metric)
    assert (read.probes, read.distortion) == (partition.probes, partition.distortion)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 6), st.floats(1e-4, 1.0))
def test_what_is_decided_reads_the_same_lists_however_scores_are_rounded(
    seed: int, probes: int, slack: float
) -> None:
    vectors, queries = world(200, 6, seed, queries=40)
    partition = Partition.fit(vectors, lists=6, seed=seed)
    index = InvertedIndex(keys_of(200), vectors, partition, k=5)
    index = index.probing(probes, queries, recall=1.0)
    sound = index.decided(tf.constant(queries), slack)
    near = np.asarray(index.coarse_scores(tf.constant(queries)), np.float64)  # (B, L)
    margin = -np.diff(-np.sort(-near, axis=1), append=-np.inf)[:, probes - 1]
    assert sound.tolist() == (margin > 2 * slack).tolist()
    rng = np.random.default_rng(seed)
    before = np.sort(np.argsort(-near, axis=1)[:, :probes], axis=1)
    for _ in range(10):
        rounded = near + rng.uniform(-slack, slack, near.shape)
        after = np.sort(np.argsort(-rounded, axis=1)[:, :probes], axis=1)
        assert (before == after).all(axis=1)[sound].all()
    assert ExactIndex(keys_of(200), vectors, k=5).decided(tf.constant(queries), slack).all()


def test_items_are_given_back_in_the_order_of_their_keys() -> None:
    vectors, _ = world(50, 4, 3)
    approximate = InvertedIndex(keys_of(50), vectors, Partition.fit(vectors, lists=5), k=3)
    for index in (ExactIndex(keys_of(50), vectors, k=3), approximate):
        np.testing.assert_array_equal(index.item_vectors(), vectors)
