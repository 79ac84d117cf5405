"""Exports of every kind: their scores, what they hold, and what is not published."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
import tf_keras

from lfm4ads_tf.errors import ExportRefused, UserError
from lfm4ads_tf.export import exporter
from lfm4ads_tf.export.blessing import file_digests
from lfm4ads_tf.export.golden_rows import encoded_batch, with_missing_row
from lfm4ads_tf.export.request_schema import RequestSchema
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.foundation import FoundationModel
from tests.rounding import assert_close

KINDS = ("foundation", "ranker_tab 1", "user_tower", "item_tower")
USER_COLUMNS = {"user_id", "income", "age", "segments", "history", "pages"}
ITEM_COLUMNS = {
    "item_id", "brand", "price", "tags", "tag_weights", "vector", "s.count", "s.rate"
}  # fmt: skip


@cache
def load(exports: Path, kind: str) -> Any:
    return tf.saved_model.load(str(exports / kind / "1"))


def keras_scores(kind: str, model: tf_keras.Model, batch: Any) -> dict[str, np.ndarray]:
    if kind.endswith("_tower"):
        name = "UR" if kind == "user_tower" else "IR"
        return {"representation": model.represent(batch)[name].numpy()}
    logits = model(batch).numpy().astype(np.float64)
    return {t: 1 / (1 + np.exp(-logits[:, i])) for i, t in enumerate(model.layout.tasks)}


def schema_of(world: Any, kind: str) -> RequestSchema:
    kept = {"user_tower": USER_COLUMNS, "item_tower": ITEM_COLUMNS}.get(kind)
    columns = {c: t for c, t in world.encoder.raw_types.items() if kept is None or c in kept}
    if kind == "ranker_tab 1":
        del columns["tab"]  # no feature reads it, and a ranker has one scenario
        return RequestSchema(columns, {"UR": 3, "CR_user@cross_2": 5})
    return RequestSchema(columns, {})


@pytest.mark.parametrize("kind", KINDS)
def test_both_signatures_equal_the_keras_model(
    kind: str, world: Any, models: Any, exports: Path
) -> None:
    """On rows that the export has not seen, with missing values, unseen ids and empty lists."""
    rows = 30
    columns = with_missing_row(world.new_rows(rows - 1), world.encoder)
    rng = np.random.default_rng(5)
    vectors = {
        name: (rng.normal(size=(rows, d)) * (rng.random((rows, 1)) < 0.6)).astype(np.float32)
        for name, d in (("UR", 3), ("CR_user@cross_2", 5))
    }
    stored = {
        n: np.concatenate([v, v.any(axis=1, keepdims=True)], axis=1, dtype=np.float32)
        for n, v in vectors.items()
    }
    expected = keras_scores(kind, models[kind], encoded_batch(world.encoder, columns, stored))
    schema = schema_of(world, kind)
    signatures = load(exports, kind).signatures
    examples = tf.constant(schema.examples(columns, vectors))
    tensors = {
        name: tf.constant(value, schema.tensor_specs()[name].dtype)
        for name, value in schema.tensors(columns, vectors).items()
    }
    for outputs in (
        signatures["serving_default"](examples=examples),
        signatures["predict"](**tensors),
    ):
        assert outputs.keys() == expected.keys()
        for name, values in outputs.items():
            assert values.dtype == tf.float32
            assert_close(values, expected[name], terms=200, what=name)
            assert len(np.unique(values.numpy(), axis=0)) > rows // 2  # the rows do matter


@pytest.mark.parametrize(
    ("kind", "side"), [("user_tower", USER_COLUMNS), ("item_tower", ITEM_COLUMNS)]
)
def test_a_tower_asks_for_its_side_alone(
    kind: str, side: set[str], world: Any, exports: Path
) -> None:
    signatures = load(exports, kind).signatures
    names = set(signatures["predict"].structured_input_signature[1])
    assert names == {c.replace(".", "_dot_") for c in side}
    own = schema_of(world, kind).examples(world.columns, {})
    every = RequestSchema(world.encoder.raw_types, {}).examples(world.columns, {})
    assert own != every
    first, second = (
        signatures["serving_default"](examples=tf.constant(e))["representation"].numpy()
        for e in (own, every)
    )
    assert np.array_equal(first, second)


def saved_variables(folder: Path) -> dict[str, list[int]]:
    found = dict(tf.train.list_variables(str(folder / "variables" / "variables")))
    return {k: v for k, v in found.items() if not k.startswith("_CHECKPOINTABLE")}


def test_tables_are_merged_and_no_slot_comes_along(models: Any, exports: Path) -> None:
    for kind in ("foundation", "ranker_tab 1"):
        model = models[kind]
        embeddings = model.backbone.embeddings
        shapes = sorted(saved_variables(exports / kind / "1").values())
        tables = {
            dim: [sum(p.shape[0] for p in embeddings.parts(str(dim))), dim * embeddings.sets]
            for dim in embeddings.dims
        }
        parts = {id(p) for p in embeddings.all_parts()}
        dense = [v.shape.as_list() for v in model.trainable_variables if id(v) not in parts]
        assert len(dense) > 8
        # every variable of the model once, each table as one, and the archive's save counter
        saved = [shape for shape in shapes if shape]
        assert saved == sorted([*dense, *tables.values()])


def test_a_tower_holds_nothing_of_the_other_side(models: Any, exports: Path) -> None:
    fitted = {t.name: t.rows + 1 for t in models["foundation"].layout.tables}
    user = sorted(s for s in saved_variables(exports / "user_tower" / "1").values() if s)
    # width 4 x 2 sets: user_id; width 8 x 2: age, segments, pages, and item_id for the history
    rows = sum(fitted[t] for t in ("age", "segments", "pages", "item_id"))
    width = 8 + 4 * 16 + 1  # user_id, the four others of the user, income
    assert user == sorted([[fitted["user_id"], 8], [rows, 16], [width, 6], [6]])
    item = sorted(s for s in saved_variables(exports / "item_tower" / "1").values() if s)
    assert item == sorted([[fitted["brand"], 8], [fitted["item_id"] + fitted["tags"], 16]])


def test_blessing_tells_what_was_proven(exports: Path) -> None:
    blessing = json.loads((exports / "ranker_tab 1" / "1" / "blessing.json").read_text("utf-8"))
    assert blessing["model"] == blessing["kind"] == "ranker_tab 1"
    assert blessing["tensorflow"] == tf.__version__
    assert blessing["rows_compared"] == 41 and blessing["warmup_records"] == 12
    assert 0 <= blessing["largest_difference"] and 0 <= blessing["largest_share"] <= 1
    assert blessing["load_s"] > 0 and blessing["blessed_at"]
    inputs = blessing["signatures"]["predict"]["inputs"]
    assert inputs["CR_user_at_cross_2"] == "float32 (None, 5)"
    assert blessing["signatures"]["serving_default"]["outputs"].keys() == {"click", "like"}


def test_a_model_with_nan_is_refused_and_leaves_nothing(
    world: Any, models: Any, tmp_path: Path
) -> None:
    bias = models["user_tower"].backbone.user_tower.layers[0].bias
    before = bias.numpy()
    bias.assign(np.full_like(before, np.nan))
    try:
        with pytest.raises(ExportRefused, match="'user_tower' is refused: .*NaN.*representation"):
            world.export("user_tower", models["user_tower"], tmp_path)
    finally:
        bias.assign(before)
    assert not list(tmp_path.glob("user_tower/*"))


def test_an_interrupted_export_leaves_no_version_and_the_next_one_cleans_up(
    world: Any, models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "user_tower"
    killed = folder / ".staging-7-999999999"  # no process has this number
    killed.mkdir(parents=True)
    (folder / "7").mkdir()
    seen: list[list[str]] = []

    def interrupted(_: Path, **__: Any) -> Any:
        seen.append(sorted(p.name for p in folder.iterdir()))
        raise KeyboardInterrupt

    monkeypatch.setattr(exporter, "verify_export", interrupted)
    with pytest.raises(KeyboardInterrupt):
        world.export("user_tower", models["user_tower"], tmp_path)
    ((staging, other),) = seen
    assert staging.startswith(".staging-8-") and other == "7"
    assert [p.name for p in folder.iterdir()] == ["7"]

    monkeypatch.setattr(
        exporter, "verify_export", lambda staged, **_: {"files": file_digests(staged)}
    )
    assert world.export("user_tower", models["user_tower"], tmp_path) == folder / "8"
    with pytest.raises(UserError, match="Version 8 .* exists"):
        world.export("user_tower", models["user_tower"], tmp_path, version=8)


def test_what_cannot_be_exported_is_said(world: Any, models: Any, tmp_path: Path) -> None:
    foundation = models["foundation"]
    with pytest.raises(UserError, match="plain folder name"):
        world.export("foundation", foundation, tmp_path, name="../foundation")
    with pytest.raises(UserError, match="positive integer"):
        world.export("foundation", foundation, tmp_path, version=0)
    with pytest.raises(UserError, match="no column 'brand'"):
        world.export(
            "foundation", foundation, tmp_path, samples=world.samples.drop_columns(["brand"])
        )
    with pytest.raises(ValueError, match="2 shards"):
        world.export("foundation", foundation, tmp_path, rebuild=None)

    def rebuild(shards: int, _: str) -> tf_keras.Model:
        layout = world.encoder.layout
        return FoundationModel(layout, NetworkConfig(), world.embeddings(shards))

    with pytest.raises(ValueError, match="other variables: .*/block/"):
        world.export("foundation", foundation, tmp_path, rebuild=rebuild)
    with pytest.raises(ValueError, match="cannot be exported as 'ranker_x'"):
        world.export("ranker_x", foundation, tmp_path)
    with pytest.raises(ValueError, match="reads 'UR'"):
        world.export("ranker_x", models["ranker_tab 1"], tmp_path, representations={})
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        world.export("foundation", foundation, tmp_path / "file")
    assert not list(tmp_path.glob("*/*"))


def test_samples_may_hold_columns_without_any_value(world: Any) -> None:
    samples = world.samples.set_column(0, "user_id", pa.nulls(world.samples.num_rows))
    columns = with_missing_row(samples, world.encoder)
    assert columns["user_id"].null_count == len(columns["user_id"]) == samples.num_rows + 1
