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
from lfm4ads_tf.optim.hybrid_optimizer import HybridOptimizer
from lfm4ads_tf.strict import parse
from lfm4ads_tf.transfer.downstream import DownstreamModel
from lfm4ads_tf.transfer.methods import parse_method
from tests.rounding import assert_close

pytestmark = pytest.mark.processor

LAYERS = ["towers", "fm", "cross_1", "dnn_1"]
DIMS = {"UR": 3, "IR": 2, "CR_user@cross_1": 5}


def with_representations(batch: dict[str, Any], seed: int = 3) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    rows = batch["ids"].shape[0]
    stored = {}
    for name, dim in DIMS.items():
        present = rng.random((rows, 1)) < 0.7
        vector = rng.normal(size=(rows, dim)) * present
        stored[name] = tf.constant(np.concatenate([vector, present], axis=1), tf.float32)
    return {**batch, "representations": stored}


def model_of(method: str, layout: FeatureLayout, network: Any, embeddings: Any) -> DownstreamModel:
    adapters = parse_method(method, LAYERS).adapters(DownstreamConfig(), 5)
    return DownstreamModel(layout, network, embeddings, adapters=adapters, seed=5)


def test_gate_and_extra_reach_the_stream(
    layout: FeatureLayout,
    embeddings: EmbeddingsConfig,
    make_batch: Callable[..., dict[str, Any]],
    randomize: Callable[..., None],
) -> None:
    """With no interaction layer the heads read x_0 = [E * gate; W r + b] itself."""
    plain = parse(NetworkConfig, {"block": {"layers": []}}, source="network")
    method = "feature/gate/CR_user@cross_1 & feature/linear/UR & feature/gate/IR"
    model = model_of(method, layout, plain, embeddings)
    batch = with_representations(make_batch())
    model(batch)
    randomize(model)
    towers = model.backbone.towers(batch)
    own = np.concatenate([towers.user, towers.item, towers.context], axis=1)
    stored = {n: v.numpy() for n, v in batch["representations"].items()}
    weights = [[w.numpy() for w in adapter.weights] for adapter in model.adapters]
    for (kernel, bias), name in ((weights[0], "CR_user@cross_1"), (weights[2], "IR")):
        own = own / (1 + np.exp(-(stored[name] @ kernel + bias)))
    extra = stored["UR"] @ weights[1][0] + weights[1][1]
    kernel, bias = (w.numpy() for w in model.heads.shared.weights)
    expected = np.concatenate([own, extra], axis=1) @ kernel + bias
    assert_close(model(batch), expected, terms=40)


def test_all_methods_start_from_the_same_own_weights(
    layout: FeatureLayout,
    network: NetworkConfig,
    embeddings: EmbeddingsConfig,
    make_batch: Callable[..., dict[str, Any]],
) -> None:
    batch = with_representations(make_batch())
    kernels = []
    for method in ("none", "feature/gate/CR_user@cross_1"):
        model = model_of(method, layout, network, embeddings)
        model(batch)
        kernels.append({v.name: v.numpy() for v in model.backbone.trainable_variables})
    assert kernels[0].keys() == kernels[1].keys()
    for name, value in kernels[0].items():
        np.testing.assert_array_equal(value, kernels[1][name])


def test_several_adapters_of_one_kind_have_weights_and_slots_of_their_own(
    layout: FeatureLayout,
    network: NetworkConfig,
    embeddings: EmbeddingsConfig,
    make_batch: Callable[..., dict[str, Any]],
) -> None:
    method = " & ".join(
        ["feature/linear/UR", "feature/linear/IR", "feature/mlp/UR", "feature/mlp/CR_user@cross_1"]
        + ["feature/gate/UR", "feature/gate/CR_user@cross_1"]
    )
    model = model_of(method, layout, network, embeddings)
    batch = with_representations(make_batch())
    tf.function(model)(batch)
    tables = {id(p) for p in model.backbone.embeddings.all_parts()}
    dense = [v for v in model.trainable_variables if id(v) not in tables]
    assert len({v.name for v in dense}) == len(dense)
    HybridOptimizer(0.1, 0.1).build([model.backbone.embeddings], dense)


def test_omitted_features_change_nothing(
    layout: FeatureLayout,
    network: NetworkConfig,
    embeddings: EmbeddingsConfig,
    make_batch: Callable[..., dict[str, Any]],
    randomize: Callable[..., None],
) -> None:
    """Replaced values of what is omitted do not matter, those of every other column do."""
    omitted = layout.without(["city", "tags", "v", "hour"])
    model = DownstreamModel(omitted, network, embeddings, seed=5)
    batch = make_batch()
    model(batch)
    randomize(model)
    before = model(batch).numpy()
    singles = [f.name for f in layout.single]
    numbers = [d.name for d in layout.dense for _ in range(d.width)]
    for k, name in enumerate(singles):
        ids = batch["ids"].numpy()
        ids[:, k] = (ids[:, k] + 1) % 3
        assert np.array_equal(model({**batch, "ids": tf.constant(ids)}), before) == (name == "city")
    for k, name in enumerate(numbers):
        dense = batch["dense"].numpy()
        dense[:, k] += 1.0
        changed = model({**batch, "dense": tf.constant(dense)})
        assert np.array_equal(changed, before) == (name in ("v", "hour"))
    bags = {"history": batch["bags"]["history"]}
    np.testing.assert_array_equal(model({**batch, "bags": bags}), before)
    assert "tags" not in model.backbone.embeddings.layout.tables


def test_tokens_are_fields_of_the_factorisation_machine(
    layout: FeatureLayout,
    embeddings: EmbeddingsConfig,
    make_batch: Callable[..., dict[str, Any]],
    randomize: Callable[..., None],
) -> None:
    raw = {"block": {"layers": [{"type": "fm", "dim": 4}]}}
    network = parse(NetworkConfig, raw, source="network")
    config = DownstreamConfig(token_dim=4)
    adapters = parse_method("feature/token/UR", LAYERS).adapters(config, 5)
    model = DownstreamModel(layout, network, embeddings, adapters=adapters, seed=5)
    batch = with_representations(make_batch())
    model(batch)
    randomize(model)
    token = model.adapters[0](batch["representations"], width=1).tokens[0].numpy()
    towers = model.backbone.towers(batch)
    fm = next(m for m in model.backbone.block.submodules if m.name == "fm")
    groups = [g.values.numpy() for g in towers.fields]
    projected = [
        g if g.shape[-1] == 4 else g @ fm.projections[str(g.shape[-1])].kernel.numpy()
        for g in groups
    ]
    fields = np.concatenate([*projected, token[:, None]], axis=1)
    expected = 0.5 * (fields.sum(1) ** 2 - (fields**2).sum(1))
    activations, _ = model.activations(batch)
    assert_close(activations["fm"], expected, terms=40)
    assert_close(activations["towers"][:, -4:], token, terms=40)


def test_adapter_penalty_is_half_the_squared_kernels(
    layout: FeatureLayout,
    network: NetworkConfig,
    embeddings: EmbeddingsConfig,
    make_batch: Callable[..., dict[str, Any]],
) -> None:
    model = model_of("feature/mlp/UR & feature/gate/IR", layout, network, embeddings)
    model(with_representations(make_batch()))
    kernels = [w.numpy() for a in model.adapters for w in a.weights if w.shape.rank == 2]
    assert len(kernels) == 3
    expected = 0.5 * sum((k**2).sum() for k in kernels)
    np.testing.assert_allclose(model.adapter_penalty(), expected, rtol=1e-5)
    plain = model_of("none", layout, network, embeddings)
    assert float(plain.adapter_penalty()) == 0.0


def test_a_field_gate_multiplies_every_field_embedding(
    layout: FeatureLayout,
    network: NetworkConfig,
    embeddings: EmbeddingsConfig,
    make_batch: Callable[..., dict[str, Any]],
    randomize: Callable[..., None],
) -> None:
    model = model_of("feature/gate_fields/UR", layout, network, embeddings)
    plain = model_of("none", layout, network, embeddings)
    batch = with_representations(make_batch())
    assert_close(model(batch), plain(batch), terms=40)  # it starts at 1
    randomize(model)
    gate = model.adapters[0](batch["representations"], width=model.backbone.fields_width).gate
    gated = model.backbone.towers(batch, gate=gate)
    fields = model.backbone.towers(batch).fields
    flat = np.concatenate([np.reshape(f.values, [12, -1]) for f in fields], axis=1)
    ours = np.concatenate([np.reshape(f.values, [12, -1]) for f in gated.fields], axis=1)
    assert_close(ours, flat * gate, terms=40)
    _, stream = model.activations(batch)
    _, expected = model.backbone.interact(gated)
    assert_close(stream, expected, terms=40)
    assert np.abs(gated.user - model.backbone.towers(batch).user).max() > 1e-2
