"""Extraction from an upstream with branches: which rows feed which layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.data.input import apply, batches
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.representations.config import RepresentationsConfig
from lfm4ads_tf.representations.extract_periods import extract_periods
from lfm4ads_tf.representations.writer import RepresentationWriter
from lfm4ads_tf.strict import parse
from tests.rounding import assert_close

UPSTREAM = {
    "branches": True,
    "network": {
        "user_tower": [4],
        "item_tower": [3],
        "block": {"layers": [{"type": "dnn", "units": [5]}]},
    },
    "embeddings": {"dim": 4, "init_scale": 0.1},
}


@pytest.mark.parametrize("cr_events", ["branch", "all"])
@pytest.mark.parametrize("layers", [None, ["ad.dnn_1"]])
def test_means_are_those_of_the_branches_own_rows(
    make_ads: Callable[..., Any],
    ads_features: Callable[..., dict[str, Any]],
    tmp_path: Path,
    cr_events: Literal["branch", "all"],
    layers: list[str] | None,
) -> None:
    """Against the mean over all rows that feed a layer, from all layers of all rows."""
    ads = {"by": "brand", "values": ["b1", "b2"]}
    cache = make_ads(features=ads_features("user_id", "item_id", "brand", "tab"), ads=ads).cache
    config = parse(RunConfig, {"upstream": UPSTREAM}, source="run")
    model = build.upstream(cache.layout, config, 3)
    chosen = RepresentationsConfig(
        aggregation="mean", layer_norm=False, layers=layers, cr_events=cr_events
    )
    extract_periods(
        model, lambda _: None, cache, chosen, RepresentationWriter(tmp_path), quiet=True
    )
    expected = list(apply(model.represent, batches(cache, np.arange(cache.rows), 10_000)))[0]
    state = tmp_path / "state" / "latest" / "item"
    assert 0 < cache.branch.sum() < cache.rows
    feeds = {"towers": "all", "content.dnn_1": "content", "ad.dnn_1": "ad"}
    for layer in layers or feeds:
        feed = feeds[layer] if cr_events == "branch" else "all"
        fed = np.ones(cache.rows, bool) if feed == "all" else cache.branch == (feed == "ad")
        values = np.zeros((len(cache.keys("item")), expected[layer].shape[1]))
        np.add.at(values, cache.item[fed], expected[layer].numpy()[fed])
        found = np.load(state / f"{feed}-mean" / f"sum@{layer}.npy")
        sizes = np.zeros_like(values)
        np.add.at(sizes, cache.item[fed], np.abs(expected[layer].numpy()[fed]))
        # the sums, and the activations that are computed in batches of other sizes
        terms = np.bincount(cache.item[fed]).max() + 40
        assert_close(found, values, terms=terms, magnitude=sizes)
