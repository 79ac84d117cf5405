from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.config import DownstreamConfig
from lfm4ads_tf.interactions.field_group import FieldGroup
from lfm4ads_tf.interactions.inputs import BlockInputs
from lfm4ads_tf.interactions.ipnn import IPNN
from lfm4ads_tf.models.candidate_towers import CandidateTowers
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.foundation import FoundationModel
from lfm4ads_tf.models.two_towers import TwoTowers
from lfm4ads_tf.optim.variable_paths import path_of
from lfm4ads_tf.strict import parse
from lfm4ads_tf.transfer.downstream import DownstreamModel
from lfm4ads_tf.transfer.isomorphic import IsomorphicModule
from lfm4ads_tf.transfer.methods import parse_method
from lfm4ads_tf.transfer.warm_start import start_module, warm_start
from tests.rounding import assert_close
from tests.small_models import EMBEDDINGS, LAYOUT, random_batch, randomize

__all__ = ["randomize"]

pytestmark = pytest.mark.processor

STACK = [{"type": "ipnn", "dim": 4, "units": 6}, {"type": "dnn", "units": [5]}]
Fill = Callable[..., None]


def inner_products(fields: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """z = W p + b, pair by pair, in float64."""
    z = np.tile(bias.astype(np.float64), (len(fields), 1))
    for row, (f, g) in enumerate(itertools.combinations(range(fields.shape[1]), 2)):
        p = np.einsum("bd,bd->b", fields[:, f].astype(np.float64), fields[:, g])
        z += p[:, None] * kernel[row]
    return z


def network(layers: Any = None, **towers: Any) -> NetworkConfig:
    raw = {"block": {"layers": layers or STACK}, **towers}
    return parse(NetworkConfig, raw, source="network")


@pytest.mark.parametrize("fields", [2, 3, 7])
def test_a_dense_layer_reads_the_inner_products_of_all_pairs(fields: int) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(5, fields, 4)).astype(np.float32)
    layer = IPNN(3, dim=4, seed=1)
    layer([tf.constant(values)])
    kernel = rng.normal(size=(fields * (fields - 1) // 2, 3)).astype(np.float32)
    layer.kernel.assign(kernel)
    layer.bias.assign([0.5, -1.0, 2.0])
    expected = inner_products(values, kernel, layer.bias.numpy())
    magnitude = inner_products(abs(values), abs(kernel), abs(layer.bias.numpy()))
    assert_close(layer([tf.constant(values)]), expected, terms=60, magnitude=magnitude)


def test_other_widths_are_projected_first() -> None:
    rng = np.random.default_rng(1)
    groups = [rng.normal(size=(5, f, w)).astype(np.float32) for f, w in ((3, 4), (2, 7), (1, 2))]
    layer = IPNN(3, dim=4, seed=3)
    found = layer([tf.constant(g) for g in groups])
    of_width = {w: p.kernel.numpy().astype(np.float64) for w, p in layer.projections.items()}
    assert sorted(of_width) == ["2", "7"]
    vectors = [groups[0], groups[1] @ of_width["7"], groups[2] @ of_width["2"]]
    fields = np.concatenate(vectors, axis=1)
    expected = inner_products(fields, layer.kernel.numpy(), layer.bias.numpy())
    assert_close(found, expected, terms=60)


def test_one_field_has_no_pair() -> None:
    with pytest.raises(ValueError, match="two fields or more, not 1"):
        IPNN(3, dim=4)([tf.ones([2, 1, 4])])


def test_a_weight_stays_with_its_pair_whatever_order_the_fields_come_in() -> None:
    values = tf.constant(np.random.default_rng(2).normal(size=(5, 4, 4)), tf.float32)

    def inputs(places: list[int]) -> BlockInputs:
        group = FieldGroup(tf.gather(values, places, axis=1), [f"f{k}" for k in places], ["u"] * 4)
        return BlockInputs(values[:, 0], values[:, 1], None, [group])

    layer = IPNN(3, dim=4, seed=3, name="ipnn")
    found = [layer.interact(values[:, 0], inputs(k))[1] for k in ([0, 1, 2, 3], [2, 0, 3, 1])]
    assert_close(found[1], found[0], terms=24)
    assert not np.allclose(found[0], layer([tf.gather(values, [2, 0, 3, 1], axis=1)]), atol=1e-2)


@pytest.mark.parametrize("method", ["none", "feature/token/UR & feature/linear/UR"])
def test_a_warm_start_copies_what_the_pairs_weigh(method: str, randomize: Fill) -> None:
    """Adapted tokens make further pairs, whose weights are zero at first."""
    batch = {**random_batch(), "scenario": tf.ones([12], tf.int64)}
    upstream = FoundationModel(LAYOUT, network(), EMBEDDINGS, seed=1)
    upstream(batch)
    randomize(upstream)
    expected = upstream(batch)
    stored = tf.concat([upstream.represent(batch)["UR"], tf.ones([12, 1])], axis=1)
    batch["representations"] = {"UR": stored}
    settings = DownstreamConfig(token_dim=3)
    adapters = parse_method(method, ["towers"]).adapters(settings, 5)
    model = DownstreamModel(LAYOUT, network(), EMBEDDINGS, adapters=adapters, seed=5)
    before = model(batch).numpy()
    carried = warm_start(upstream, model, "output", {1: 1.0})
    assert np.abs(before - expected).max() > 0.1
    assert_close(model(batch), expected, terms=64)
    rates = carried.rates({"ipnn": 0.5})
    assert {path.partition("ipnn/")[2] for path in rates} >= {"kernel", "bias"}


def test_a_downstream_without_a_field_loses_its_pairs_alone(randomize: Fill) -> None:
    batch = {**random_batch(), "scenario": tf.ones([12], tf.int64)}
    upstream = FoundationModel(LAYOUT, network(STACK[:1]), EMBEDDINGS, seed=1)
    upstream(batch)
    randomize(upstream)
    model = DownstreamModel(LAYOUT.without(["brand"]), network(STACK[:1]), EMBEDDINGS, seed=5)
    model(batch)
    warm_start(upstream, model, "output", {1: 1.0})
    one, other = (m.backbone.block._stack[0] for m in (upstream, model))
    kernels = dict(zip(one._pairs(), one.kernel.numpy(), strict=True))
    left = dict(zip(other._pairs(), other.kernel.numpy(), strict=True))
    assert len(kernels) == 21 and len(left) == 15
    assert not [name for name, _ in left if "brand" in name]
    for pair, row in left.items():
        np.testing.assert_array_equal(row, kernels[pair])


def test_the_module_has_the_pairs_of_the_fields_that_ur_and_ir_hold(randomize: Fill) -> None:
    """Their order is another one: the user's before the item's."""
    batch = {**random_batch(), "scenario": tf.ones([12], tf.int64)}
    upstream = FoundationModel(LAYOUT, network(), EMBEDDINGS, seed=1)
    upstream(batch)
    randomize(upstream)
    found = upstream.represent(batch)
    batch["representations"] = {n: tf.concat([found[n], tf.ones([12, 1])], 1) for n in ("UR", "IR")}
    module = IsomorphicModule(LAYOUT, LAYOUT, network(), EMBEDDINGS, head=True, seed=3)
    module(batch)
    start_module(upstream, module, {1: 1.0})
    for name, value in module.activations(batch)[0].items():
        assert_close(value, found[name], terms=64, what=name)
    assert_close(module(batch)[1], upstream(batch), terms=64)


def test_a_projected_representation_takes_over_no_features_weights() -> None:
    """UR of a tower with layers is one field, and the upstream may have a feature called `user`."""
    sizes, batch = network(user_tower=[4], item_tower=[3]), random_batch()
    upstream = FoundationModel(LAYOUT, sizes, EMBEDDINGS, seed=1)
    found = upstream.represent(batch)
    batch["representations"] = {n: tf.concat([found[n], tf.ones([12, 1])], 1) for n in ("UR", "IR")}
    module = IsomorphicModule(LAYOUT, LAYOUT, sizes, EMBEDDINGS, seed=3)
    module(batch)
    start_module(upstream, module, {1: 1.0})
    layer = module.block._stack[0]
    assert len(layer._pairs()) == 3  # of UR, IR and the context's field
    assert not np.any(layer.kernel)


def test_a_ranking_gives_what_rows_of_one_user_do() -> None:
    model, batch = FoundationModel(LAYOUT, network(), EMBEDDINGS, seed=1), random_batch()
    model(batch)
    backbone: TwoTowers = model.backbone
    rows, places = random_batch(), [k for k, f in enumerate(LAYOUT.single) if f.owner == "user"]
    ids, dense = rows["ids"].numpy(), rows["dense"].numpy()
    columns = LAYOUT.dense_columns("user")
    ids[:, places], dense[:, columns] = ids[0, places], dense[0, columns]
    history = tf.gather(rows["bags"]["history"][0], tf.zeros(12, tf.int32))
    rows |= {"ids": tf.constant(ids), "dense": tf.constant(dense)}
    rows["bags"] = {**rows["bags"], "history": (history, None)}
    user = {
        "ids": batch["ids"][:1],
        "bags": {n: (i[:1], None if w is None else w[:1]) for n, (i, w) in batch["bags"].items()},
        "dense": batch["dense"][:1],
    }
    ranked, _ = model.backbone.interact(CandidateTowers(backbone)(user, batch))
    whole, _ = model.backbone.interact(backbone.towers(rows))
    for name, value in whole.items():
        assert_close(ranked[name], value, terms=64, what=name)


def test_its_weights_are_named_by_the_layer() -> None:
    model = FoundationModel(LAYOUT, network(STACK[:1]), EMBEDDINGS, seed=1)
    model(random_batch())
    paths = [path_of(v).rpartition("block/")[2] for v in model.backbone.block.trainable_variables]
    projections = [f"ipnn/project_{width}/kernel" for width in (2, 3)]
    assert sorted(paths) == ["ipnn/bias", "ipnn/kernel", *projections]
