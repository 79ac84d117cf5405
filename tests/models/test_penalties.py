"""What layers of interaction blocks add to the losses of models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.interactions.penalties import Penalties
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.foundation import FoundationModel
from lfm4ads_tf.models.multi_embedding import MultiEmbedding
from lfm4ads_tf.optim.hybrid_optimizer import HybridOptimizer
from lfm4ads_tf.strict import parse
from lfm4ads_tf.transfer.downstream import DownstreamModel
from lfm4ads_tf.transfer.isomorphic import IsomorphicModule
from tests.rounding import assert_close
from tests.small_models import EMBEDDINGS, LAYOUT, random_batch

pytestmark = pytest.mark.processor

PENALISED = {"experts": 2, "experts_l1": 0.3, "decorrelation": 2.0}
TERMS = ["mixer/experts_l1", "mixer/decorrelation"]
ROWS = 4


def network(**options: Any) -> NetworkConfig:
    layer = {"type": "mixer", "tokens": 3, "head_dim": 2, "depth": 1, "expansion": 1, **options}
    return parse(NetworkConfig, {"block": {"layers": [layer]}}, source="network")


def batch_of(rows: int = ROWS, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    # as wide as what towers without units give: three fields and the numbers of a side
    stored = {
        name: tf.constant(rng.normal(size=(rows, width + 1)), tf.float32)
        for name, width in (("UR", 12), ("IR", 13))
    }
    branch = tf.constant(np.arange(rows) % 3 == 0, tf.int64)
    return {**random_batch(rows, seed), "branch": branch, "representations": stored}


def rows_of(batch: dict[str, Any], rows: Any) -> dict[str, Any]:
    """Some rows of a batch."""
    taken = {n: tf.gather(batch[n], rows) for n in ("ids", "dense", "scenario", "labels", "branch")}
    taken["bags"] = {
        n: (tf.gather(ids, rows), None if weights is None else tf.gather(weights, rows))
        for n, (ids, weights) in batch["bags"].items()
    }
    stored = batch["representations"].items()
    return {**taken, "representations": {n: tf.gather(v, rows) for n, v in stored}}


def changed(model: Any) -> Any:
    """The model with weights at which routes are closed and open, and differ from row to row."""
    model(batch_of())
    rng = np.random.default_rng(4)
    for variable in model.trainable_variables:
        if "table_" not in variable.name:
            variable.assign(rng.normal(0, 0.5, size=variable.shape))
    return model


def foundation(**options: Any) -> FoundationModel:
    return FoundationModel(LAYOUT, network(**PENALISED), EMBEDDINGS, seed=3, **options)


def with_module() -> DownstreamModel:
    plan = network(**PENALISED, number_tokens=0)
    module = IsomorphicModule(LAYOUT, LAYOUT, plan, EMBEDDINGS, seed=3)
    return DownstreamModel(LAYOUT, network(**PENALISED), EMBEDDINGS, module=module, seed=3)


MODELS = {
    "foundation": (foundation, TERMS),
    "branches": (lambda: foundation(branches=True), TERMS),
    "sets": (
        lambda: MultiEmbedding(
            LAYOUT, network(**PENALISED), EMBEDDINGS.model_copy(update={"sets": 2}), seed=3
        ),
        TERMS,
    ),
    "module": (with_module, [*TERMS, *(f"isomorphic/{name}" for name in TERMS)]),
}


@pytest.mark.parametrize("name", ["branches", "sets", "module"])
def test_a_term_is_the_mean_of_its_rows(name: str) -> None:
    """Whatever size, row weights and labels a batch has, and where a branch has no row."""
    make, names = MODELS[name]
    model, batch = changed(make()), batch_of()
    terms = model.loss_terms(batch, training=False)
    assert list(terms) == ["tasks", *names]
    assert all(float(terms[each]) > 0 for each in names)
    alone = [model.loss_terms(rows_of(batch, [b]), training=False) for b in range(ROWS)]
    for each in names:
        values = [float(terms_of_row[each]) for terms_of_row in alone]
        assert len(set(values)) > 1
        assert_close([terms[each]], [np.mean(values)], terms=400, magnitude=np.mean(values))
    weights = tf.constant(np.random.default_rng(5).random(ROWS), tf.float32)
    unknown = {**batch, "weights": weights, "labels": tf.fill([ROWS, 2], np.nan)}
    other = model.loss_terms(unknown, training=False)
    assert float(other["tasks"]) == 0.0
    assert all(np.array_equal(other[each], terms[each]) for each in names)
    assert not model.losses  # nothing is left in Keras' own list


def test_each_set_of_a_block_adds_its_own() -> None:
    model, batch = changed(MODELS["sets"][0]()), batch_of()
    backbone = model.backbone
    given, block = backbone._block_inputs(backbone.towers(batch)), backbone.block
    means = []
    for of_set, inputs in zip(block._of_sets, given.set_by_set(2), strict=True):
        penalties = Penalties()
        of_set(inputs, penalties=penalties)
        means.append(penalties.means(ROWS))
    terms = model.loss_terms(batch, training=False)
    for name in TERMS:
        expected = float(means[0][name]) + float(means[1][name])
        assert_close([terms[name]], [expected], terms=40, magnitude=expected)


def ops_of(model: FoundationModel, batch: dict[str, Any]) -> list[str]:
    traced = tf.function(lambda given: model(given), autograph=False).get_concrete_function(batch)
    return [op.type for op in traced.graph.get_operations()]


def test_a_prediction_computes_no_penalty() -> None:
    batch = batch_of()
    plain = FoundationModel(LAYOUT, network(experts=2, experts_l1=0), EMBEDDINGS, seed=3)
    model = foundation()
    assert np.array_equal(model(batch), plain(batch))
    assert ops_of(model, batch) == ops_of(plain, batch)
    assert list(plain.loss_terms(batch)) == ["tasks"]
    dnn = parse(NetworkConfig, {"block": {"layers": [{"type": "dnn"}]}}, source="network")
    assert not FoundationModel(LAYOUT, dnn, EMBEDDINGS).backbone.block.penalises


@pytest.mark.parametrize("name", ["foundation", "module"])
def test_a_training_step_moves_routers_by_the_penalties(name: str) -> None:
    """By the penalties alone: no row has a label."""
    make, names = MODELS[name]
    model = changed(make())
    before = {v.name: v.numpy() for v in model.trainable_variables}
    eager = name != "foundation"  # one of them is traced
    model.compile(HybridOptimizer(dense_learning_rate=0.01), run_eagerly=eager)
    unlabelled = {**batch_of(), "labels": tf.fill([ROWS, 2], np.nan)}
    told = model.train_on_batch(unlabelled, return_dict=True)
    assert list(told) == ["loss", "tasks", *names]
    assert told["tasks"] == 0.0 and told["loss"] == pytest.approx(sum(told[n] for n in names))
    routers = [v for v in model.trainable_variables if "router" in v.name]
    assert len(routers) == (2 if name == "foundation" else 4)
    for variable in routers:
        assert not np.array_equal(variable, before[variable.name]), variable.name
