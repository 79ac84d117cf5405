"""Models whose tables are not one variable per width, or of another type, as exports take them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.embeddings.config import EmbeddingsConfig, ServedStorage
from lfm4ads_tf.errors import ExportRefused
from lfm4ads_tf.export.merging import TOLERANCES, merged_model
from lfm4ads_tf.export.tower_model import TowerModel
from lfm4ads_tf.features.layout import FeatureLayout, IdField, TableField
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.foundation import FoundationModel
from lfm4ads_tf.models.model_parts import ModelParts
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.transfer.downstream import DownstreamModel
from lfm4ads_tf.transfer.methods import parse_method
from tests.rounding import assert_close, probability_room, room

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


OPTIONS: list[dict[str, Any]] = [
    {"storage": "bfloat16"},
    {"storage": "float16", "shards": 3},
    {"tables_per_width": 2},
    {"tables": {"item": {"trainable": False}, "brand": {"storage": "float16"}}},
    {"tables": {"user": {"hashing": {"kind": "double", "buckets": 6}, "group": "slow"}}},
]


def kept_as(storage: str, values: np.ndarray) -> np.ndarray:
    """Values (N, K, D) as a table of this type returns them."""
    if storage == "int8":
        scale = np.abs(values).max(axis=2, keepdims=True) / np.float32(127)
        return np.rint(values / np.where(scale > 0, scale, 1)) * scale
    return values.astype(storage).astype(np.float32)


@pytest.mark.parametrize("storage", get_args(ServedStorage))
@pytest.mark.parametrize("options", OPTIONS)
def test_tables_are_merged_and_score_alike(options: dict[str, Any], storage: Any) -> None:
    config = EmbeddingsConfig.model_validate({"dim": 4, "init_scale": 0.5, "sets": 2, **options})
    model = made(config, 1)

    def rebuild(shards: int, storage: ServedStorage) -> FoundationModel:
        return made(config.served(shards, storage), 9)

    copy = merged_model(model, rebuild, BATCH, storage)
    assert copy is not model
    (table,) = copy.backbone.embeddings.all_parts()
    assert table.dtype == storage
    for name in ("user", "item", "brand"):
        np.testing.assert_allclose(
            copy.backbone.embeddings.read_table(name),
            kept_as(storage, model.backbone.embeddings.read_table(name)),
            rtol=0 if storage != "int8" else 1e-6,
        )
    share = TOLERANCES[storage]
    logits = model(BATCH).numpy()
    atol = share + probability_room(100, logits).max()
    np.testing.assert_allclose(tf.sigmoid(copy(BATCH)), tf.sigmoid(logits), rtol=0, atol=atol)
    towers = model.backbone.towers(BATCH)
    for side in ("user", "item"):
        tower = TowerModel(model.backbone, side, storage)  # type: ignore[arg-type]
        assert tower.embeddings is not None
        assert [part.dtype for part in tower.embeddings.all_parts()] == [storage]
        expected = getattr(towers, side).numpy()
        atol = (share + room(100, 1.0)) * np.abs(expected).max()
        np.testing.assert_allclose(tower(BATCH), expected, rtol=0, atol=atol)
    if storage == "float32":
        assert_close(copy(BATCH), logits, terms=100)
    with pytest.raises(ValueError, match="`rebuild` is needed"):
        merged_model(model, None, BATCH, storage)
    if storage != "float32":
        with pytest.raises(ValueError, match=f"not whole {storage} ones"):
            merged_model(model, lambda shards, _: rebuild(shards, "float32"), BATCH, storage)


def test_whole_tables_are_taken_as_they_are() -> None:
    model = made(EmbeddingsConfig(dim=4), 1)
    assert merged_model(model, None, BATCH) is model
    half = made(EmbeddingsConfig(dim=4, storage="float16"), 1)
    assert merged_model(half, None, BATCH, "float16") is half


@pytest.mark.parametrize("storage", ["float16", "int8"])
@pytest.mark.parametrize("method", ["module/warm_start/embeddings", "module/isomorphic"])
def test_every_table_of_a_transferred_model_is_narrow(method: str, storage: Any) -> None:
    config = RunConfig.model_validate(
        {
            "upstream": {"network": NETWORK.model_dump(), "embeddings": {"dim": 4}},
            "downstream": {"network": NETWORK.model_dump(), "embeddings": {"dim": 3, "shards": 2}},
        }
    )
    layout = replace(
        LAYOUT,
        fields=(*LAYOUT.fields, IdField("hour", "context", "hour")),
        tables=(*LAYOUT.tables, TableField("hour", 9)),
    )
    of = parse_method(method, ["towers", "cross_1"])
    rng = np.random.default_rng(2)
    stored = {name: tf.constant(rng.normal(size=(3, 6)), tf.float32) for name in of.sources}
    hours = tf.constant([[1], [8], [-1]], tf.int64)
    batch = {**BATCH, "ids": tf.concat([BATCH["ids"], hours], axis=1), "representations": stored}

    def make(shards: int | None = None, storage: ServedStorage = "float32") -> DownstreamModel:
        dims = dict.fromkeys(of.sources, 5)
        return build.downstream(layout, config, of, dims, 1, shards=shards, storage=storage)

    model = make()
    for variable in model.trainable_variables:
        variable.assign_add(rng.normal(0, 0.3, variable.shape))
    copy = merged_model(model, make, batch, storage)
    layers = ModelParts(copy).embeddings
    assert len(layers) == (2 if method == "module/isomorphic" else 1)
    assert {part.dtype for layer in layers.values() for part in layer.all_parts()} == {
        tf.as_dtype(storage)
    }
    found, expected = (tf.sigmoid(of(batch)).numpy() for of in (copy, model))
    atol = TOLERANCES[storage] + probability_room(100, model(batch).numpy()).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)
    assert np.abs(found - expected).max() > 0


@pytest.mark.parametrize(
    ("storage", "value", "reason"),
    [
        ("int8", np.nan, "not finite.*Received: nan"),
        ("float16", 1e6, "too large for a table that is kept as float16"),
    ],
)
def test_values_that_cannot_be_kept_are_refused(storage: Any, value: float, reason: str) -> None:
    config = EmbeddingsConfig(dim=4)
    model = made(config, 1)
    model.backbone.embeddings.write_rows("user", 3, np.full((1, 4), value))
    with pytest.raises(ExportRefused, match=f"tables cannot be copied: .*{reason}"):
        merged_model(model, lambda n, kept: made(config.served(n, kept), 1), BATCH, storage)
    with pytest.raises(ExportRefused, match=reason):
        TowerModel(model.backbone, "user", storage)
