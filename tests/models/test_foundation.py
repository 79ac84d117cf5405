from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.foundation import FoundationModel
from tests.rounding import assert_close

pytestmark = pytest.mark.processor


def test_represent_gives_towers_and_every_layer(
    layout: FeatureLayout,
    network: NetworkConfig,
    embeddings: EmbeddingsConfig,
    make_batch: Callable[..., dict[str, Any]],
) -> None:
    model = FoundationModel(layout, network, embeddings, seed=1)
    batch = make_batch()
    logits = model(batch)
    assert logits.shape == (12, 2)
    found = model.represent(batch)
    assert list(found) == ["UR", "IR", "towers", "fm", "cross_1", "dnn_1"]
    assert {n: v.shape[1] for n, v in found.items()} == {
        "UR": 4,
        "IR": 3,
        "towers": 4 + 3 + 3,  # the context has one field of width 2 and one number
        "fm": 4,
        "cross_1": 14,
        "dnn_1": 5,
    }
    towers = model.backbone.towers(batch)
    np.testing.assert_array_equal(found["UR"], towers.user)
    np.testing.assert_array_equal(
        found["towers"], tf.concat([towers.user, towers.item, towers.context], axis=1)
    )
    # The heads read the activated last layer.
    expected = model.heads(tf.nn.relu(found["dnn_1"]), batch["scenario"])
    assert_close(logits, expected, terms=24)


def test_ur_is_bit_equal_whatever_the_item_side_holds(
    layout: FeatureLayout,
    network: NetworkConfig,
    embeddings: EmbeddingsConfig,
    make_batch: Callable[..., dict[str, Any]],
) -> None:
    model = FoundationModel(layout, network, embeddings, seed=1)
    batch, other = make_batch(seed=0), make_batch(seed=1)
    item = [f.owner != "user" for f in layout.single]
    mixed = {
        **batch,
        "ids": tf.where(tf.constant(item), other["ids"], batch["ids"]),
        "bags": {**batch["bags"], "tags": other["bags"]["tags"]},
        "dense": tf.concat([batch["dense"][:, :1], other["dense"][:, 1:]], axis=1),
        "scenario": other["scenario"],
    }
    one, two = model.represent(batch), model.represent(mixed)
    assert np.array_equal(one["UR"], two["UR"])
    assert not np.array_equal(one["IR"], two["IR"])


def test_the_seed_settles_every_weight(
    layout: FeatureLayout,
    network: NetworkConfig,
    embeddings: EmbeddingsConfig,
    make_batch: Callable[..., dict[str, Any]],
) -> None:
    logits = [
        FoundationModel(layout, network, embeddings, seed=s)(make_batch()).numpy()
        for s in (1, 1, 2)
    ]
    assert np.array_equal(logits[0], logits[1])
    assert not np.array_equal(logits[0], logits[2])


def test_an_unknown_scenario_reads_the_shared_head(
    layout: FeatureLayout,
    network: NetworkConfig,
    embeddings: EmbeddingsConfig,
    make_batch: Callable[..., dict[str, Any]],
    randomize: Callable[..., None],
) -> None:
    model = FoundationModel(layout, network, embeddings, seed=1)
    batch = make_batch()
    model(batch)
    randomize(model)
    batch["scenario"] = tf.fill([12], tf.constant(-1, tf.int64))
    stream = tf.nn.relu(model.represent(batch)["dnn_1"])
    assert_close(model(batch), model.heads.shared(stream), terms=24)
