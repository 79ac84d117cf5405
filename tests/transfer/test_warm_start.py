"""A downstream that starts from an upstream: exact equality with what the upstream computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.config import DownstreamConfig
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.foundation import FoundationModel
from lfm4ads_tf.strict import parse
from lfm4ads_tf.transfer.downstream import DownstreamModel
from lfm4ads_tf.transfer.isomorphic import IsomorphicModule
from lfm4ads_tf.transfer.methods import parse_method
from lfm4ads_tf.transfer.warm_start import start_module, warm_start
from tests.rounding import assert_close

pytestmark = pytest.mark.processor

LAYERS = ["towers", "fm", "cross_1", "cross_2", "dnn_1", "dnn_2"]
STACK = [
    {"type": "fm", "dim": 4},
    {"type": "cross", "depth": 2},
    {"type": "dnn", "units": [5, 4]},
]
SCENARIO = 1

Batch = dict[str, Any]
MakeBatch = Callable[..., Batch]
Fill = Callable[..., None]


def network(structure: str, towers: bool = True, layers: Any = None, **more: Any) -> NetworkConfig:
    raw: dict[str, Any] = {"block": {"structure": structure, "layers": layers or STACK}, **more}
    if towers:
        raw |= {"user_tower": [6, 4], "item_tower": [3]}
    return parse(NetworkConfig, raw, source="network")


def trained(
    layout: FeatureLayout, sizes: NetworkConfig, tables: EmbeddingsConfig, batch: Batch, fill: Fill
) -> FoundationModel:
    upstream = FoundationModel(layout, sizes, tables, seed=1)
    upstream(batch)
    fill(upstream, seed=4)
    return upstream


def in_scenario(batch: Batch) -> Batch:
    return {**batch, "scenario": tf.fill([batch["ids"].shape[0]], tf.constant(SCENARIO, tf.int64))}


def with_stored(batch: Batch, stored: dict[str, Any]) -> Batch:
    ones = tf.ones([batch["ids"].shape[0], 1])
    joined = {n: tf.concat([tf.cast(v, tf.float32), ones], axis=1) for n, v in stored.items()}
    return {**batch, "representations": joined}


@pytest.mark.parametrize("structure", ["stacked", "parallel", "gated"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("method", ["none", "feature/linear/UR & feature/mlp/UR"])
def test_output_starts_at_the_upstreams_logits(
    structure: str,
    shared: bool,
    method: str,
    layout: FeatureLayout,
    embeddings: EmbeddingsConfig,
    make_batch: MakeBatch,
    randomize: Fill,
) -> None:
    """Even beside adapters: what they join has weights of zero at first."""
    sizes = network(structure, shared_head=shared)
    batch = in_scenario(make_batch())
    upstream = trained(layout, sizes, embeddings, batch, randomize)
    batch = with_stored(batch, {"UR": upstream.represent(batch)["UR"]})
    adapters = parse_method(method, LAYERS).adapters(DownstreamConfig(), 5)
    model = DownstreamModel(layout, sizes, embeddings, adapters=adapters, seed=5)
    before = model(batch).numpy()
    warm_start(upstream, model, "output", {SCENARIO: 1.0})
    expected = upstream(batch).numpy()
    assert np.abs(before - expected).max() > 0.1
    assert_close(tf.sigmoid(model(batch)), tf.sigmoid(expected), terms=64)


@pytest.mark.parametrize("level", ["towers", "fm", "cross_1", "cross_2", "dnn_1", "dnn_2"])
def test_layers_up_to_the_level_compute_what_the_upstreams_do(
    level: str,
    layout: FeatureLayout,
    embeddings: EmbeddingsConfig,
    make_batch: MakeBatch,
    randomize: Fill,
) -> None:
    sizes = network("stacked")
    batch = make_batch()
    upstream = trained(layout, sizes, embeddings, batch, randomize)
    model = DownstreamModel(layout, sizes, embeddings, seed=5)
    model(batch)
    warm_start(upstream, model, level, {SCENARIO: 1.0})
    theirs, ours = upstream.represent(batch), model.activations(batch)[0]
    reached = LAYERS.index(level)
    for k, name in enumerate(LAYERS):
        difference = np.abs(theirs[name] - ours[name]).max()
        assert difference < 1e-5 if k <= reached else difference > 1e-3, name


def test_embeddings_copies_tables_and_nothing_else(
    layout: FeatureLayout,
    embeddings: EmbeddingsConfig,
    make_batch: MakeBatch,
    randomize: Fill,
) -> None:
    sizes = network("stacked")
    upstream = trained(layout, sizes, embeddings, make_batch(), randomize)
    model, alone = (DownstreamModel(layout, sizes, embeddings, seed=5) for _ in range(2))
    for one in (model, alone):
        one(make_batch())
    assert not warm_start(upstream, model, "embeddings", {SCENARIO: 1.0}).layers
    tables = model.backbone.embeddings
    for name in tables.layout.tables:
        expected = upstream.backbone.embeddings.read_table(name)
        np.testing.assert_array_equal(tables.read_table(name), expected)
    dense = zip(model.trainable_variables, alone.trainable_variables, strict=True)
    for ours, before in dense:
        if "table_" not in ours.name:
            np.testing.assert_array_equal(ours, before)


def test_omitted_features_count_as_zero_inputs(
    layout: FeatureLayout, embeddings: EmbeddingsConfig, make_batch: MakeBatch, randomize: Fill
) -> None:
    """Without tower layers and with cross layers alone, x_0 loses columns and nothing else."""
    sizes = network("stacked", towers=False, layers=[{"type": "cross", "depth": 1}])
    batch = in_scenario(make_batch())
    upstream = trained(layout, sizes, embeddings, batch, randomize)
    model = DownstreamModel(layout.without(["city", "v", "tab"]), sizes, embeddings, seed=5)
    model(batch)
    warm_start(upstream, model, "output", {SCENARIO: 1.0})
    omitted = [name in ("city", "v", "tab") for name, _ in upstream.backbone.stream_labels()]
    origin = np.where(omitted, 0.0, upstream.represent(batch)["towers"].numpy())
    cross = next(m for m in upstream.backbone.block.submodules if m.name == "cross_1")
    kernel, bias = cross.dense.kernel.numpy(), cross.dense.bias.numpy()
    crossed = origin * (origin @ kernel + bias) + origin
    expected = upstream.heads(tf.constant(crossed, tf.float32), batch["scenario"])
    assert_close(model(batch), expected, terms=64)


def test_a_segment_starts_from_the_mixture_of_its_scenarios(
    layout: FeatureLayout, embeddings: EmbeddingsConfig, make_batch: MakeBatch, randomize: Fill
) -> None:
    sizes = network("parallel")
    batch = make_batch()
    upstream = trained(layout, sizes, embeddings, batch, randomize)
    model = DownstreamModel(layout, sizes, embeddings, seed=5)
    model(batch)
    warm_start(upstream, model, "output", {0: 0.25, 2: 0.75})
    logits = {
        s: upstream({**batch, "scenario": tf.fill([12], tf.constant(s, tf.int64))}) for s in (0, 2)
    }
    assert_close(model(batch), 0.25 * logits[0] + 0.75 * logits[2], terms=64)


def test_frozen_layers_leave_training_and_rates_name_the_copied_ones(
    layout: FeatureLayout, embeddings: EmbeddingsConfig, make_batch: MakeBatch, randomize: Fill
) -> None:
    sizes = network("stacked")
    batch = make_batch()
    upstream = trained(layout, sizes, embeddings, batch, randomize)
    model = DownstreamModel(layout, sizes, embeddings, seed=5)
    model(batch)
    copied = warm_start(upstream, model, "cross_1", {SCENARIO: 1.0})
    found = copied.rates({"towers": 0.3, "block": 0.5, "dnn_1": 0.9, "heads": 0.9})
    of = {path.split("/", 1)[1]: rate for path, rate in found.items()}
    assert {rate for path, rate in of.items() if "_tower" in path} == {0.3}
    assert {rate for path, rate in of.items() if "cross_1" in path} == {0.5}
    assert not [path for path in of if "cross_2" in path or "dnn" in path or "heads" in path]
    names = {v.name.split(":")[0] for v in model.trainable_variables}
    assert set(found) <= names
    copied.freeze()
    left = [v.name for v in model.trainable_variables if "table_" not in v.name]
    assert left and not [n for n in left if "_tower" in n or "cross_1" in n]
    assert [n for n in left if "cross_2" in n] and [n for n in left if "dnn_1" in n]


@pytest.mark.parametrize("structure", ["stacked", "parallel", "gated"])
@pytest.mark.parametrize("with_fm", [False, True])
def test_the_module_computes_the_upstreams_activations_from_stored_ur_and_ir(
    structure: str,
    with_fm: bool,
    layout: FeatureLayout,
    embeddings: EmbeddingsConfig,
    make_batch: MakeBatch,
    randomize: Fill,
) -> None:
    """With an fm where towers have no layer: UR and IR then hold the field embeddings."""
    sizes = network(structure, towers=not with_fm, layers=STACK if with_fm else STACK[1:])
    batch = in_scenario(make_batch())
    upstream = trained(layout, sizes, embeddings, batch, randomize)
    theirs = upstream.represent(batch)
    batch = with_stored(batch, {"UR": theirs["UR"], "IR": theirs["IR"]})
    own = network("stacked")
    module = IsomorphicModule(layout, layout, sizes, embeddings, head=True, seed=3)
    model = DownstreamModel(layout, own, embeddings, module=module, seed=5)
    model(batch)
    start_module(upstream, module, {SCENARIO: 1.0})
    ours, _ = module.activations(batch)
    for name, value in ours.items():
        assert_close(value, theirs[name], terms=64, what=name)
    joined, logits = module(batch)
    assert_close(tf.sigmoid(logits), tf.sigmoid(upstream(batch)), terms=64)
    np.testing.assert_array_equal(joined[:, -2:], np.ones((12, 2)))


def test_what_the_module_joins(
    layout: FeatureLayout, embeddings: EmbeddingsConfig, make_batch: MakeBatch, randomize: Fill
) -> None:
    """The chosen layer, gated, with the flags; an absent key enters as zeros."""
    sizes = network("parallel")
    rng = np.random.default_rng(8)
    present = np.array([[1.0, 0.0]] * 6 + [[0.0, 1.0]] * 6, np.float32)
    ur, ir = (rng.normal(size=(12, d)).astype(np.float32) for d in (4, 3))
    stored = {"UR": np.c_[ur * present[:, :1], present[:, :1]]}
    stored["IR"] = np.c_[ir * present[:, 1:], present[:, 1:]]
    batch = {**make_batch(), "representations": {n: tf.constant(v) for n, v in stored.items()}}
    module = IsomorphicModule(
        layout, layout, sizes, embeddings, layer="dnn_1", gate=True, copied=False, seed=3
    )
    module(batch)
    randomize(module)
    joined, logits = module(batch)
    activations, _ = module.activations(batch)
    cross = activations["dnn_1"].numpy()
    kernel, bias = (w.numpy() for w in module.gate.weights)
    gate = 1 / (1 + np.exp(-(np.c_[cross, present] @ kernel + bias)))
    assert_close(joined, np.c_[cross * gate, present], terms=64)
    assert logits is None
    towers = activations["towers"].numpy()
    assert not towers[6:, :4].any() and not towers[:6, 4:7].any()
    assert towers[:6, :4].all() and towers[6:, 4:7].all()


def test_context_that_the_downstream_omits_is_zero_in_the_module(
    layout: FeatureLayout, embeddings: EmbeddingsConfig, make_batch: MakeBatch, randomize: Fill
) -> None:
    sizes = network("parallel")
    batch = in_scenario(make_batch())
    upstream = trained(layout, sizes, embeddings, batch, randomize)
    theirs = upstream.represent(batch)
    batch = with_stored(batch, {"UR": theirs["UR"], "IR": theirs["IR"]})
    labels = upstream.backbone.stream_labels()
    for omitted in (["tab"], ["hour"], ["tab", "hour"]):
        module = IsomorphicModule(layout.without(omitted), layout, sizes, embeddings, seed=3)
        module(batch)
        start_module(upstream, module, {SCENARIO: 1.0})
        expected = np.where([n in omitted for n, _ in labels], 0.0, theirs["towers"])
        assert_close(module.activations(batch)[0]["towers"], expected, terms=64)
