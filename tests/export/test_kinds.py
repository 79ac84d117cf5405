"""Plug-ins as exports: a user's adapter, index and kind; and requests that are refused."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
import tf_keras

from lfm4ads_tf.config import DownstreamConfig, ExportConfig
from lfm4ads_tf.errors import ExportRefused, UserError
from lfm4ads_tf.export.contract import CONTRACT_FILE
from lfm4ads_tf.export.exporter import export_model
from lfm4ads_tf.export.golden_rows import GoldenRows, encoded_batch, with_missing_row
from lfm4ads_tf.export.kinds.kind import kind_of
from lfm4ads_tf.export.kinds.registry import KINDS
from lfm4ads_tf.export.kinds.towers import UserTower
from lfm4ads_tf.export.prediction_serving import PredictionServing
from lfm4ads_tf.export.request import ExportRequest
from lfm4ads_tf.export.request_schema import RequestSchema
from lfm4ads_tf.export.retrieval_stage import retrieval_names
from lfm4ads_tf.export.samples import ExportSamples
from lfm4ads_tf.export.spec_check import check_against_spec
from lfm4ads_tf.export.subject import ExportSubject
from lfm4ads_tf.models.foundation import FoundationModel
from lfm4ads_tf.retrieval.config import IndexConfig
from lfm4ads_tf.retrieval.exact import ExactIndex
from lfm4ads_tf.retrieval.index_items import IndexItems
from lfm4ads_tf.retrieval.registry import INDEXES
from lfm4ads_tf.transfer.adapters.adapter import Adapted, Adapter
from lfm4ads_tf.transfer.adapters.registry import ADAPTERS
from lfm4ads_tf.transfer.config import AdapterConfig
from lfm4ads_tf.transfer.downstream import DownstreamModel
from lfm4ads_tf.transfer.methods import parse_method
from lfm4ads_tf.transfer.retrieval.projected_retriever import ProjectedRetriever


class SquareAdapter(Adapter):
    """x_0 = [E; (r W)^2]."""

    widens: ClassVar[bool] = True

    def __init__(self, sources: Sequence[str], dim: int) -> None:
        super().__init__(sources, name="square")
        self.dense = tf_keras.layers.Dense(dim, use_bias=False, name="w")

    @classmethod
    def create(cls, sources: Sequence[str], config: AdapterConfig, options: Any, seed: int) -> Self:
        return cls(sources, config.linear_dim)

    def call(
        self, representations: Mapping[str, tf.Tensor], width: int, training: bool = False
    ) -> Adapted:
        (source,) = self.sources
        return Adapted(extra=[tf.square(self.dense(representations[source]))])


class NearestIndex(ExactIndex):
    """Scores by distance: -|q - v|^2."""

    def candidates(self, queries: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        apart = queries[:, None, :] - self.vectors[None, :, :]  # (B, N, d)
        best, place = tf.math.top_k(-tf.reduce_sum(tf.square(apart), axis=2), k=count)
        return tf.gather(self.ids, place), best

    def expected(self, queries: np.ndarray, excluded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ids, scores = self(queries, tf.constant(excluded.astype(object), tf.string))
        return ids.numpy(), scores.numpy()


def test_a_ranker_with_a_users_adapter_scores_as_its_keras_model(
    world: Any, tmp_path: Path, unproven: None
) -> None:
    with ADAPTERS.added("square", SquareAdapter):
        method = parse_method("feature/square/UR", ["towers"])

    def make(shards: int, storage: Any = "float32") -> DownstreamModel:
        with ADAPTERS.added("square", SquareAdapter):
            adapters = method.adapters(DownstreamConfig(linear_dim=3), seed=1)
        tables = world.embeddings(shards, storage)
        return DownstreamModel(world.encoder.layout, world.network, tables, adapters=adapters)

    model = world.built(lambda: make(2))
    folder = world.export("ranker_x", model, tmp_path, rebuild=make)
    rows = with_missing_row(world.new_rows(9), world.encoder)
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(10, 3)).astype(np.float32)
    stored = np.concatenate([vectors, np.ones((10, 1), np.float32)], axis=1)
    logits = model(encoded_batch(world.encoder, rows, {"UR": stored})).numpy().astype(np.float64)
    predict = tf.saved_model.load(str(folder)).signatures["predict"]
    columns = {c: t for c, t in world.encoder.raw_types.items() if c != "tab"}
    schema = RequestSchema(columns, {"UR": 3})
    assert set(predict.structured_input_signature[1]) == set(schema.tensor_specs())
    tensors = schema.tensors(rows, {"UR": vectors})
    specs = schema.tensor_specs()
    outputs = predict(**{n: tf.constant(v, specs[n].dtype) for n, v in tensors.items()})
    for k, task in enumerate(world.encoder.layout.tasks):
        np.testing.assert_allclose(
            outputs[task], 1 / (1 + np.exp(-logits[:, k])), rtol=0, atol=1e-6
        )


class Calibrated(FoundationModel):
    """p = sigmoid(a z) with a trained a."""

    sigmoid: ClassVar[bool] = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.slope = tf.Variable(1.0, name="slope")

    def probabilities(self, logits: tf.Tensor) -> tf.Tensor:
        return tf.sigmoid(self.slope * logits)


def test_probabilities_read_the_weights_of_the_copy_with_whole_tables(world: Any) -> None:
    """It is what is exported, and what roundings are measured on."""

    def make(shards: int, storage: Any = "float32") -> Calibrated:
        return Calibrated(world.encoder.layout, world.network, world.embeddings(shards, storage))

    model = world.built(lambda: make(2))
    model.slope.assign(3.0)
    rows = GoldenRows.of(world.new_rows(9), world.encoder, {}, [])
    serving = PredictionServing(model, rows, rebuild=make)
    logits = model(rows.batch).numpy().astype(np.float64)
    scores = 1 / (1 + np.exp(-3.0 * logits))
    for k, task in enumerate(serving.tasks):
        np.testing.assert_allclose(serving.trained(rows)[task], scores[:, k], rtol=0, atol=1e-6)
    serving.model.slope.assign(0.0)
    assert all((values == 0.5).all() for values in serving.expected(rows).values())


def test_a_users_index_is_exported_and_finds_its_own_best_items(
    world: Any, tmp_path: Path, unproven: None
) -> None:
    rng = np.random.default_rng(1)
    keys, vectors = np.array([f"i{k}" for k in range(30)]), rng.normal(size=(30, 5))
    model = ProjectedRetriever("UR", 5, item_counts=np.ones(4, np.int64), seed=3)
    ur = world.representations["UR"]
    model({"representations": {"UR": ur, "IR": np.zeros((len(ur), 6), np.float32)}})
    items = IndexItems(
        np.char.encode(keys, "utf-8"),
        vectors.astype(np.float32),
        4,
        queries=lambda: ur[:, :-1],
        seed=0,
        folder=tmp_path,
        refreshed=False,
    )
    with INDEXES.added("nearest", NearestIndex):
        assert retrieval_names() == ("retrieval_exact", "retrieval_ann", "retrieval_nearest")
        index = INDEXES["nearest"].create(items, IndexConfig())
        assert INDEXES["nearest"].settings(IndexConfig()) == {}
    request = ExportRequest(
        "retrieval_nearest",
        ExportSubject(model, index=index),
        world.encoder,
        ExportSamples(world.samples, {"UR": ur}),
        tmp_path,
        config=ExportConfig(warmup_rows=2),
    )
    folder = export_model(request)
    asked = rng.normal(size=(6, 3)).astype(np.float32)
    predict = tf.saved_model.load(str(folder)).signatures["predict"]
    outputs = predict(UR=tf.constant(asked), exclude=tf.constant([[""]] * 6))
    kernel, bias = (v.numpy().astype(np.float64) for v in model.projection.weights)
    apart = ((asked @ kernel + bias)[:, None, :] - vectors) ** 2
    order = np.argsort(apart.sum(axis=2), axis=1)[:, :4]
    assert outputs["ids"].numpy().astype(str).tolist() == keys[order].tolist()
    best = -np.take_along_axis(apart.sum(axis=2), order, axis=1)
    np.testing.assert_allclose(outputs["scores"], best, rtol=1e-5, atol=1e-5)


def test_a_users_kind_is_exported_and_checked_against_the_spec(
    world: Any, models: Any, tmp_path: Path, unproven: None
) -> None:
    class AuditTower(UserTower):
        """The user tower under names of its own, which must ask for all that the spec reads."""

        reads_all: ClassVar[bool] = True

    model = models["user_tower"]
    with KINDS.added("audit_", AuditTower):
        assert kind_of("audit_x") == AuditTower("audit_x") and kind_of("audit_x").of_upstream
        folder = world.export("audit_x", model, tmp_path)
        contract = json.loads((folder / CONTRACT_FILE).read_text("utf-8"))
        assert contract["kind"] == "audit_x" and not contract["tasks"]
        with pytest.raises(ExportRefused, match="does not ask for the column 'item_id'"):
            check_against_spec(contract, world.spec)
        loaded = tf.saved_model.load(str(folder)).signatures["serving_default"]
        with np.load(folder / "assets.extra" / "golden.npz") as golden:
            assert "expected/serving_default/representation" in golden
            expected = golden["expected/serving_default/representation"]
        np.testing.assert_array_equal(
            expected[:-1], model.represent(world.batch)["UR"].numpy().astype(np.float32)
        )
        assert set(loaded.structured_outputs) == {"representation"}
    with pytest.raises(ExportRefused, match="unknown kind 'audit_x'"):
        check_against_spec(contract, world.spec)


def test_a_request_is_checked_when_it_is_made(world: Any, models: Any, tmp_path: Path) -> None:
    subject = ExportSubject(models["foundation"])
    samples = ExportSamples(world.samples)
    request = ExportRequest("foundation", subject, world.encoder, samples, tmp_path)
    assert request.kind == "foundation" and request.folder == tmp_path / "foundation"
    assert replace(request, name="other").kind == "foundation"
    with pytest.raises(UserError, match="plain folder name"):
        replace(request, name="a/b")
    with pytest.raises(UserError, match="positive integer"):
        replace(request, version=0)
    with pytest.raises(ValueError, match="Unknown kind of export: 'tower'"):
        replace(request, kind="tower")
    with pytest.raises(ValueError, match="A FoundationModel cannot be exported as 'retrieval_x'"):
        replace(request, kind="retrieval_x")
    with pytest.raises(ValueError, match="reads 'UR': its values for 40 rows"):
        replace(request, kind="ranker_x", subject=ExportSubject(models["ranker_tab 1"]))
    with pytest.raises(ValueError, match="at least one sample"):
        ExportSamples(world.samples.slice(0, 0))
    assert isinstance(samples.rows, pa.Table) and not list(tmp_path.iterdir())
