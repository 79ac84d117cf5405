"""The networks beside NumPy, and what is copied and trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.experiments.public_network import PublicNetwork
from lfm4ads_tf.experiments.public_retriever import PublicRetriever
from tests.rounding import assert_close

SIZES, USER_FIELDS, TABS, USERS = (5, 3, 4, 2), 2, 3, 6
ROWS = 12


def batch() -> dict[str, tf.Tensor]:
    draw = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(SIZES)[:-1]])
    ids = np.stack([draw.integers(0, n, ROWS) for n in SIZES], axis=1) + offsets
    return {
        "ids": tf.constant(ids, tf.int32),
        "user": tf.constant(draw.integers(0, USERS, ROWS), tf.int32),
        "tab": tf.constant(draw.integers(0, TABS, ROWS), tf.int32),
    }


def weights(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    kernel, bias = layer.get_weights()
    return kernel.astype(float), bias.astype(float)


def affine(x: np.ndarray, layer: Any) -> np.ndarray:
    kernel, bias = weights(layer)
    return x @ kernel + bias


@pytest.mark.parametrize("adapter", ["", "concat", "gate"])
def test_network_equals_numpy(adapter: str) -> None:
    given = batch()
    known = np.random.default_rng(1).normal(size=(USERS, 7)).astype(np.float32)
    source = known if adapter else None
    model = PublicNetwork(SIZES, TABS, representations=source, adapter=adapter, seed=3)
    origin = model.table.numpy().astype(float)[given["ids"].numpy()].reshape(ROWS, -1)  # (B, 40)
    if adapter:
        adapted = affine(known[given["user"].numpy()], model.adapter)
        if adapter == "gate":
            origin = origin / (1 + np.exp(-adapted))
        else:
            origin = np.concatenate([origin, adapted], axis=1)  # (B, 50)
    activations = [origin]
    for cross in model.crosses:
        activations.append(origin * affine(activations[-1], cross.dense) + activations[-1])
    for dense in model.deep.layers:
        activations.append(affine(np.maximum(activations[-1], 0), dense))
    every = affine(np.maximum(activations[-1], 0), model.output_layer)
    expected = every[np.arange(ROWS), given["tab"].numpy()]
    for training in (False, True):
        assert_close(model(given, training=training), expected, terms=300)
    for found, wanted in zip(model.represent(given), activations, strict=True):
        assert_close(found, wanted, terms=300)


def test_initial_values_have_the_layers_bounds() -> None:
    model = PublicNetwork(SIZES, TABS, representations=np.zeros((USERS, 7), np.float32), seed=3)
    for layer, inputs in ((model.adapter, 7), (model.crosses[0], 50), (model.output_layer, 50)):
        for values in layer.get_weights():
            assert 0 < np.abs(values).max() <= 1 / np.sqrt(inputs)


@pytest.mark.parametrize("layers", range(7))
def test_warm_start_copies_the_first_layers(layers: int) -> None:
    upstream, model = PublicNetwork(SIZES, TABS, seed=0), PublicNetwork(SIZES, TABS, seed=1)
    model.warm_start(upstream, layers)
    np.testing.assert_array_equal(model.table, upstream.table)
    for k, (mine, theirs) in enumerate(zip(model.stack, upstream.stack, strict=True)):
        same = [np.array_equal(a, b) for a, b in zip(mine.weights, theirs.weights, strict=True)]
        assert all(same) if k < layers else not any(same)
    assert len(model.trainable_variables) == 1 + 2 * 6, "nothing is frozen"


def test_retriever_equals_numpy() -> None:
    given = batch()
    own = PublicRetriever(SIZES, USER_FIELDS, seed=0)
    rows = own.table.numpy()[given["ids"].numpy()]  # (B, F, 10)
    user = rows[:, :USER_FIELDS].reshape(ROWS, -1)  # (B, 20)
    items = rows[:, USER_FIELDS:].reshape(ROWS, -1)  # (B, 20)
    expected = (affine(user, own.projection) * items).sum(axis=1)
    assert_close(own(given), expected, terms=300)
    assert len(own.trainable_variables) == 3

    known = np.random.default_rng(1).normal(size=(USERS, 7)).astype(np.float32)
    model = PublicRetriever(
        SIZES, USER_FIELDS, items=own.table.numpy(), representations=known, seed=1
    )
    expected = (affine(known[given["user"].numpy()], model.projection) * items).sum(axis=1)
    assert_close(model(given), expected, terms=300)
    assert [v.shape.as_list() for v in model.trainable_variables] == [[7, 20], [20]]
