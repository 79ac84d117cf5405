"""Abundance of a model's tables: of the ids that were seen, set by set, whatever the shards."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.data.splits import AUXILIARY
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.embeddings.table import EmbeddedFeature, ShardedEmbedding, TableConfig
from lfm4ads_tf.models.two_towers import build_embeddings
from lfm4ads_tf.pipeline.continuation import UpstreamContinuation
from lfm4ads_tf.pipeline.pretrain import Pretraining
from lfm4ads_tf.pipeline.table_abundance import table_abundances
from lfm4ads_tf.strict import parse
from lfm4ads_tf.training.schedule import continuation

SETS, DIM = 2, 4


def tables(cache: EncodedCache, shards: int = 1) -> ShardedEmbedding:
    config = EmbeddingsConfig(dim=DIM, sets=SETS, shards=shards, init_scale=1.0)
    return build_embeddings(cache.layout, config, seed=1)


def by_svd(rows: np.ndarray) -> float:
    values = np.linalg.svd(rows.astype(np.float64), compute_uv=False)
    return float(values.sum() / values[0])


def seen_by_hand(cache: EncodedCache, rows: np.ndarray, table: str) -> list[int]:
    """The ids of a table that some rows hold, row by row."""
    held: set[int] = set()
    singles = [f.name for f in cache.layout.single]
    for row in rows.tolist():
        batch = cache.take(np.array([row]))
        for field in cache.layout.fields:
            if field.table == table and field.combiner is None:
                held.add(int(batch["ids"][0, singles.index(field.name)]))
            elif field.table == table:
                held |= {int(v) for v in batch["bags"][field.name].values if v >= 0}
    return sorted(held)


@pytest.mark.parametrize("split", ["train", "auxiliary"])
def test_it_is_of_the_rows_seen(ads: Any, split: str) -> None:
    cache = ads.cache
    layer = tables(cache)
    rows = cache.auxiliary_rows if split == "auxiliary" else cache.rows_of(split)[:70]
    found = {entry["table"]: entry for entry in table_abundances([layer], cache, rows)}
    assert list(found) == list(layer.layout.tables)
    unseen = missing = 0
    for name, entry in found.items():
        ids = seen_by_hand(cache, rows, name)
        values = layer.read_table(name)  # the missing id's row last, as Python's index -1
        of_ids = values[ids]  # (N, K, D)
        assert entry["rows"] == len(ids)
        dim = layer.layout.table(name).dim
        assert entry["width"] == dim
        expected = [by_svd(of_ids[:, k]) for k in range(SETS)]
        assert entry["sets"] == pytest.approx(expected, rel=0, abs=1e-9)
        side_by_side = of_ids.reshape(len(ids), -1)
        assert entry["joined"] == pytest.approx(by_svd(side_by_side), rel=0, abs=1e-9)
        unseen += len(values) - len(ids)
        missing += -1 in ids
    assert unseen > 10 and missing > 0  # the log has both
    shared = found["item_id"]
    assert shared["fields"] == ["clicked", "item_id"] and shared["layer"] == layer.name


def test_rows_that_were_not_seen_and_shards_change_nothing(ads: Any) -> None:
    cache, rows = ads.cache, ads.cache.train_rows[:50]
    layer = tables(cache)
    before = table_abundances([layer], cache, rows)
    for name in layer.layout.tables:
        values = layer.read_table(name)
        other = np.random.default_rng(0).normal(size=values.shape).astype(np.float32)
        ids = seen_by_hand(cache, rows, name)
        other[ids] = values[ids]
        layer.write_table(name, other)
    assert table_abundances([layer], cache, rows) == before
    assert table_abundances([tables(cache, shards=3)], cache, rows) == before


def test_tables_of_no_field_of_the_log_are_left_out_and_layers_told_apart(ads: Any) -> None:
    config = [TableConfig("tab", 6, 2), TableConfig("position", 4, 2)]
    features = [EmbeddedFeature("tab", "tab"), EmbeddedFeature("position", "position")]
    prior = ShardedEmbedding(config, features, name="prior")
    found = table_abundances([prior, tables(ads.cache)], ads.cache, ads.cache.train_rows)
    assert [e["table"] for e in found if e["layer"] == "prior"] == ["tab"]
    assert [e["layer"] for e in found if e["table"] == "tab"] == ["prior", "embeddings"]


def test_a_table_of_zeros_is_undefined(ads: Any) -> None:
    layer = tables(ads.cache)
    layer.write_table("brand", np.zeros_like(layer.read_table("brand")))
    found = table_abundances([layer], ads.cache, ads.cache.train_rows)
    entry = next(e for e in found if e["table"] == "brand")
    assert entry["sets"] == [None, None] and entry["joined"] is None


@pytest.mark.parametrize("schedule", ["chain", "epochs"])
@pytest.mark.parametrize("passes", [0, 1])
def test_rows_seen_are_those_of_the_phases(
    ads: Any, tmp_path: Path, schedule: str, passes: int
) -> None:
    training = {"schedule": schedule, "auxiliary_passes": passes}
    raw = {"upstream": {"training": training}, "representations": {"snapshots": "single"}}
    run: Any = _run(ads, raw, tmp_path)
    seen = Pretraining(run, 0, "test").rows_seen()
    split = ads.cache.split[seen]
    assert set(ads.cache.train_rows) == set(seen[split != AUXILIARY])
    assert (split == AUXILIARY).sum() == passes * len(ads.cache.auxiliary_rows)
    assert (np.diff(seen) > 0).all()


@pytest.mark.parametrize("passes", [0, 1])
def test_a_refreshed_upstream_has_seen_what_was_held_out(
    ads: Any, tmp_path: Path, passes: int
) -> None:
    run: Any = _run(ads, {"upstream": {"training": {"auxiliary_passes": passes}}}, tmp_path)
    first = Pretraining(run, 0, "test").rows_seen()
    training, held_out = run.config.upstream.training, ads.cache.period[ads.cache.rows_of("valid")]
    later = [p.rows for p in continuation(training, ads.cache, int(held_out.min()))]
    expected = np.unique(np.concatenate([first, *later]))
    found = UpstreamContinuation(run, run, 0).rows_seen()
    np.testing.assert_array_equal(found, expected)
    assert set(ads.cache.rows_of("test")) <= set(found)


def _run(ads: Any, raw: dict[str, Any], folder: Path) -> Any:
    config = parse(RunConfig, raw, source="run")
    return SimpleNamespace(
        cache=ads.cache, config=config, version=2, upstream=lambda seed: folder, quiet=True
    )
