"""Models whose tables are not one float32 variable per width, as an export takes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from export.merging import merged_model
from export.tower_model import TowerModel
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.features.layout import FeatureLayout, IdField, TableField
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.foundation import FoundationModel

LAYOUT = FeatureLayout(
    fields=(
        IdField("user", "user", "user"),
        IdField("seen", "user", "item", "mean"),
        IdField("item", "item", "item"),
        IdField("brand", "item", "brand"),
    ),
    dense=(),
    tables=(TableField("user", 40), TableField("item", 20), TableField("brand", 5)),
    scenarios=("all",),
    tasks=("click",),
)
NETWORK = NetworkConfig.model_validate(
    {"user_tower": [5], "item_tower": [5], "block": {"layers": [{"type": "cross", "depth": 1}]}}
)
SEEN = tf.RaggedTensor.from_row_lengths(tf.range(5, dtype=tf.int64), [2, 0, 3])
BATCH: dict[str, Any] = {
    "ids": tf.constant([[39, 19, 0], [3, -1, 4], [-1, 7, -1]], tf.int64),
    "bags": {"seen": (SEEN, None)},
    "dense": tf.zeros([3, 0]),
    "scenario": tf.zeros([3], tf.int64),
}


def made(config: EmbeddingsConfig, seed: int) -> FoundationModel:
    model = FoundationModel(LAYOUT, NETWORK, config, seed=seed)
    model(BATCH)
    return model


@pytest.mark.parametrize(
    "options",
    [
        {"storage": "bfloat16"},
        {"storage": "float16", "shards": 3},
        {"tables_per_width": 2},
        {"tables": {"item": {"trainable": False}, "brand": {"storage": "float16"}}},
        {"tables": {"user": {"hashing": {"kind": "double", "buckets": 6}, "group": "slow"}}},
    ],
)
def test_tables_are_merged_in_float32_and_score_alike(options: dict[str, Any]) -> None:
    config = EmbeddingsConfig.model_validate({"dim": 4, "init_scale": 0.5, "sets": 2, **options})
    model = made(config, 1)
    copy = merged_model(model, lambda shards: made(config.served(shards), 9), BATCH)
    assert copy is not model
    (table,) = copy.backbone.embeddings.all_parts()
    assert table.dtype == tf.float32
    for name in ("user", "item", "brand"):
        np.testing.assert_array_equal(
            copy.backbone.embeddings.read_table(name), model.backbone.embeddings.read_table(name)
        )
    np.testing.assert_allclose(copy(BATCH), model(BATCH), rtol=1e-6, atol=1e-6)
    for side in ("user", "item"):
        tower = TowerModel(model.backbone, side)  # type: ignore[arg-type]
        assert tower.embeddings is not None
        assert [part.dtype for part in tower.embeddings.all_parts()] == [tf.float32]
        towers = model.backbone.towers(BATCH)
        np.testing.assert_allclose(tower(BATCH), getattr(towers, side), rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="`rebuild` is needed"):
        merged_model(model, None, BATCH)


def test_whole_tables_are_taken_as_they_are() -> None:
    model = made(EmbeddingsConfig(dim=4), 1)
    assert merged_model(model, None, BATCH) is model
