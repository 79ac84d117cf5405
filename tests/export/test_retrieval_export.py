"""Exports of retrieval models: what is asked, what is found, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.config import ExportConfig
from lfm4ads_tf.export import verify_child
from lfm4ads_tf.export.exporter import export_model
from lfm4ads_tf.export.golden_rows import GoldenRows, encoded_batch
from lfm4ads_tf.export.request import ExportRequest
from lfm4ads_tf.export.retrieval_serving import EXCLUDE, RetrievalServing
from lfm4ads_tf.export.samples import ExportSamples
from lfm4ads_tf.export.subject import ExportSubject
from lfm4ads_tf.retrieval.exact import ExactIndex
from lfm4ads_tf.retrieval.index import Index
from lfm4ads_tf.retrieval.inverted_index import InvertedIndex
from lfm4ads_tf.retrieval.partition import Partition
from lfm4ads_tf.transfer.retrieval.projected_retriever import ProjectedRetriever
from lfm4ads_tf.transfer.retrieval.retriever import Retriever
from tests.quick_proof import quick_proof
from tests.rounding import assert_close

pytestmark = pytest.mark.processor

ITEMS, K = 60, 8
KEYS = np.array([f"ï{k}" for k in range(ITEMS)])
VECTORS = np.random.default_rng(1).normal(size=(ITEMS, 5)).astype(np.float32)
COUNTS = np.ones(20, np.int64)


def retriever(world: Any) -> Retriever:
    model = Retriever(world.encoder.layout, [6], 5, world.embeddings(2), item_counts=COUNTS, seed=3)
    model(world.batch)
    return model


def projection(world: Any) -> ProjectedRetriever:
    model = ProjectedRetriever("UR", 5, item_counts=COUNTS, seed=3)
    stored = world.batch["representations"]
    model({"representations": {"UR": stored["UR"], "IR": tf.zeros([len(stored["UR"]), 6])}})
    model.projection.bias.assign(tf.random.stateless_normal([5], [1, 2]))
    return model


def exact() -> Index:
    index = ExactIndex(KEYS, VECTORS, k=K)
    index.set_ineligible(KEYS[:20])
    return index


def approximate() -> Index:
    partition = Partition.fit(VECTORS, lists=6)
    return InvertedIndex(KEYS, VECTORS, partition, k=K).probing(4, VECTORS, recall=1)


MODELS: dict[str, Callable[[Any], Any]] = {"own": retriever, "projected": projection}
INDEXES: dict[str, Callable[[], Index]] = {"exact": exact, "ann": approximate}


def export(world: Any, model: Any, index: Index, out: Path, name: str) -> Path:
    return export_model(
        ExportRequest(
            name,
            ExportSubject(model, index=index),
            world.encoder,
            ExportSamples(world.samples, {"UR": world.representations["UR"]}),
            out,
            kind=f"retrieval_{name.rpartition('_')[2]}",
            config=ExportConfig(warmup_rows=3),
        )
    )


@pytest.fixture(scope="module")
def exported(world: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, ...]]:
    out = tmp_path_factory.mktemp("run")
    found = {}
    with quick_proof(but=["projected_ann"]):
        for kind, which in (("own", "exact"), ("projected", "exact"), ("projected", "ann")):
            model, index = MODELS[kind](world), INDEXES[which]()
            folder = export(world, model, index, out, f"{kind}_{which}")
            found[f"{kind}_{which}"] = (model, index, folder)
    return found


@pytest.mark.parametrize("name", ["own_exact", "projected_exact", "projected_ann"])
def test_both_signatures_equal_the_keras_model(world: Any, exported: Any, name: str) -> None:
    model, index, folder = exported[name]
    rows = world.new_rows(11)
    columns = {c: rows[c] for c in rows.column_names}
    vectors = np.random.default_rng(4).normal(size=(11, 3)).astype(np.float32)
    stored = np.concatenate([vectors, np.ones((11, 1), np.float32)], axis=1)
    batch = encoded_batch(world.encoder, columns, {"UR": stored})
    golden = GoldenRows(world.encoder, columns, {"UR": stored}, batch)
    serving = RetrievalServing(model, index, golden)
    expected_columns = serving.golden_columns(golden)
    expected = serving.expected(golden)
    examples = serving.schema.examples(expected_columns, {"UR": vectors})
    tensors = serving.schema.tensors(expected_columns, {"UR": vectors})
    signatures = tf.saved_model.load(str(folder)).signatures
    specs = serving.schema.tensor_specs()
    asked = {n: tf.constant(v, specs[n].dtype) for n, v in tensors.items()}
    for outputs in (
        signatures["serving_default"](examples=tf.constant(examples)),
        signatures["predict"](**asked),
    ):
        assert outputs["ids"].shape == outputs["scores"].shape == (11, K)
        assert np.array_equal(outputs["ids"].numpy(), expected["ids"])
        assert_close(outputs["scores"], expected["scores"], terms=64)
    for row, gone in enumerate(expected_columns[EXCLUDE].to_pylist()):
        assert len(gone) == 2 * (row % 2)
        found = [key.decode() for key in expected["ids"][row]]
        assert not {*gone} & {*found}
        if isinstance(index, ExactIndex):
            assert not {*KEYS[:20]} & {*found}


def test_a_projection_asks_for_its_representation_alone(exported: Any) -> None:
    blessing = json.loads((exported["projected_ann"][2] / "blessing.json").read_text())
    assert blessing["signatures"]["predict"]["inputs"].keys() == {"UR", EXCLUDE}
    assert blessing["signatures"]["predict"]["outputs"] == {
        "ids": f"string (None, {K})", "scores": f"float32 (None, {K})"
    }  # fmt: skip


@pytest.mark.parametrize("what", ["ids", "scores"])
def test_other_answers_are_refused(exported: Any, what: str, tmp_path: Path) -> None:
    golden = exported["projected_exact"][2] / "assets.extra" / "golden.npz"
    before = golden.read_bytes()
    with np.load(golden) as stored:
        arrays = dict(stored)
    key = f"expected/serving_default/{what}"
    # two items change places; or a score is off
    arrays[key] = arrays[key].copy()
    if what == "ids":
        arrays[key][0, :2] = arrays[key][0, 1::-1]
    else:
        arrays[key][0, 0] += 1e-4
    try:
        with golden.open("wb") as file:
            np.savez_compressed(file, **arrays)
        with pytest.raises(verify_child.Refused, match=what):
            verify_child.verify(golden.parent.parent, [])
    finally:
        golden.write_bytes(before)


def test_a_row_that_rounding_could_send_to_other_lists_is_not_golden(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place is taken by the row before, at the start by the first sound one."""
    rows = GoldenRows.of(world.samples, world.encoder, {"UR": world.representations["UR"]})
    count = len(rows.representations["UR"])
    serving = RetrievalServing(projection(world), approximate(), rows)
    slacks = []

    def decided(queries: Any, slack: float) -> np.ndarray:
        slacks.append(slack)
        return ~np.isin(np.arange(count), [0, 5, 6])

    monkeypatch.setattr(serving._index, "decided", decided)
    found = serving.decided(rows)
    places = np.arange(count)
    places[[0, 5, 6]] = [1, 4, 4]
    np.testing.assert_array_equal(found.representations["UR"], rows.representations["UR"][places])
    assert found.columns["user_id"].to_pylist() == rows.columns["user_id"].take(places).to_pylist()
    assert 0 < slacks[0] < 1e-2
    monkeypatch.setattr(serving._index, "decided", lambda *_: np.zeros(count, bool))
    assert serving.decided(rows) is rows  # nothing better is there
    exact_one = RetrievalServing(projection(world), exact(), rows)
    assert exact_one.decided(rows) is rows


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_scores_may_differ_by_a_share_of_their_terms(world: Any, scale: float) -> None:
    """A dot product has no unit: larger vectors are allowed more, in proportion."""
    rows = GoldenRows.of(world.samples, world.encoder, {"UR": world.representations["UR"]})
    model = projection(world)
    index = ExactIndex(KEYS, VECTORS * np.float32(scale), k=K)
    serving = RetrievalServing(model, index, rows)
    bound = serving.roundings(rows)["scores"].bound
    queries = model.projection(tf.constant(rows.representations["UR"][:, :-1])).numpy()
    terms = np.abs(queries) @ np.abs(VECTORS * np.float32(scale)).T
    eps = np.finfo(np.float32).eps
    assert eps * terms.max() / 8 < bound < 64 * eps * terms.max()
    assert (serving.magnitudes(rows)["scores"][:, 0] <= terms.max(axis=1) * (1 + 1e-6)).all()
