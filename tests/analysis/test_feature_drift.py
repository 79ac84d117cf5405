"""Drift of whole encoded rows: limits, names of values, and the report's numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lfm4ads_tf.analysis.feature_drift import FeatureDrift, feature_drift
from lfm4ads_tf.analysis.value_names import ValueNames
from lfm4ads_tf.data.encoded_rows import encoded_rows
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.fitted_encoding import FittedEncoding
from lfm4ads_tf.features.skew import FeatureLimits, SkewConfig

Drifts = dict[str, FeatureDrift]


@pytest.fixture(scope="module")
def measure(ads: Any) -> Callable[..., Drifts]:
    """`measure(change, skew)`: training rows, changed, against the training rows."""
    fitted = FittedEncoding.load(ads.folder / "encoding")
    encoder = Encoder(ads.spec, fitted)
    cache = ads.cache
    rows = cache.rows_of("train")
    columns = {
        name: column.take(pa.array(rows)) if isinstance(column, pa.Array) else column
        for name, column in ads.raw.columns.items()
    }

    def run(
        change: Callable[[dict[str, Any]], None] | None = None, skew: SkewConfig | None = None
    ) -> Drifts:
        logged = encoded_rows(cache, rows)
        if change is not None:
            change(logged)
        found = feature_drift(
            ads.spec,
            encoder.layout,
            encoded_rows(cache, rows),
            logged,
            columns=columns,
            names=ValueNames(ads.spec, fitted),
            skew=skew or SkewConfig(),
        )
        return {drift.feature: drift for drift in found}

    return run


def test_the_rows_themselves_do_not_drift(measure: Callable[..., Drifts], ads: Any) -> None:
    drifts = measure()
    assert list(drifts) == list(ads.spec.features)
    for drift in drifts.values():
        assert not drift.anomalies
        for found in drift.measures:
            # numbers are counted against half of the training rows
            if found.kind != "linf" or drift.kind in ("numeric", "pretrained", "statistic"):
                continue
            assert found.distance == 0
    json.dumps([drift.to_json() for drift in drifts.values()], allow_nan=False)


def test_encoded_rows_are_what_the_cache_gives(ads: Any) -> None:
    rows = ads.cache.rows_of("train")
    found, taken = encoded_rows(ads.cache, rows), ads.cache.take(rows)
    np.testing.assert_array_equal(found["ids"], taken["ids"])
    np.testing.assert_array_equal(found["dense"], taken["dense"])
    np.testing.assert_array_equal(found["scenario"], taken["scenario"])
    for name, (values, splits, weights) in found["bags"].items():
        np.testing.assert_array_equal(values, taken["bags"][name].values)
        np.testing.assert_array_equal(splits, taken["bags"][name].splits)
        assert (weights is None) == (taken["bags"][name].weights is None)
    assert encoded_rows(ads.cache, rows[:0])["ids"].shape == (0, found["ids"].shape[1])


def test_one_value_everywhere_is_named_with_its_text(
    measure: Callable[..., Drifts], ads: Any
) -> None:
    encoder = Encoder(ads.spec, FittedEncoding.load(ads.folder / "encoding"))
    column = [f.name for f in encoder.layout.single].index("item_id")
    text = FittedEncoding.load(ads.folder / "encoding").vocabularies["item_id"].values[0]

    def change(logged: dict[str, Any]) -> None:
        logged["ids"][:, column] = 1

    drift = measure(change)["item_id"]
    (anomaly,) = drift.anomalies
    assert (anomaly.feature, anomaly.kind, anomaly.value) == ("item_id", "linf", f"'{text}'")
    assert anomaly.logged == 1.0
    assert anomaly.distance == pytest.approx(1.0 - anomaly.training)
    assert "feature 'item_id': L-infinity distance" in str(anomaly)
    assert f"threshold {anomaly.threshold:g}" in str(anomaly)


def test_a_lost_column_is_an_anomaly_of_its_missing_rate_alone(
    measure: Callable[..., Drifts], ads: Any
) -> None:
    encoder = Encoder(ads.spec, FittedEncoding.load(ads.folder / "encoding"))
    column = [f.name for f in encoder.layout.single].index("brand")

    def change(logged: dict[str, Any]) -> None:
        logged["ids"][:, column] = -1
        values, splits, weights = logged["bags"]["tags"]
        logged["bags"]["tags"] = (values[:0], np.zeros_like(splits), weights)

    drifts = measure(change)
    assert [a.kind for a in drifts["brand"].anomalies] == ["missing"]
    assert [a.kind for a in drifts["tags"].anomalies] == ["missing"]
    assert [name for name, d in drifts.items() if d.anomalies] == ["brand", "tags"]


def test_a_statistic_is_held_to_limits_only_when_named(
    measure: Callable[..., Drifts], ads: Any
) -> None:
    encoder = Encoder(ads.spec, FittedEncoding.load(ads.folder / "encoding"))
    start = 0
    for field in encoder.layout.dense:
        if field.name == "user_click":
            break
        start += field.width

    def change(logged: dict[str, Any]) -> None:
        logged["dense"][:, start] = 99.0

    assert not measure(change)["user_click"].anomalies
    assert measure(change)["user_click"].limits is None
    named = SkewConfig(features={"user_click": FeatureLimits(linf=0.2)})
    (anomaly,) = [a for a in measure(change, named)["user_click"].anomalies if a.kind == "linf"]
    assert anomaly.value is not None and anomaly.value.startswith("count (")


def test_names_of_values(ads: Any) -> None:
    fitted = FittedEncoding.load(ads.folder / "encoding")
    names = ValueNames(ads.spec, fitted)
    assert names.id("user_id", -1) == "missing"
    assert names.id("user_id", 0) == "out of vocabulary"
    assert names.id("user_id", 2) == f"'{fitted.vocabularies['user_id'].values[1]}'"
    assert names.id("level", 3) == "3"
    assert names.id("segment", 3) == "bucket 3"
    edges = fitted.boundaries["price"]
    assert names.id("price", 1) == f"[{edges[0]:.6g}, {edges[1]:.6g})"
    shown = names.id_in_rows("segment", 3, np.array([1, 3]), {"segment": pa.array(["s1", "s2"])})
    assert shown == "bucket 3 (such as 's2')"
    # a logarithmic, standardised number is told in the column's own unit
    mean, deviation = fitted.standardize["age"]
    encoded = (np.log1p(40.0) - mean) / deviation
    assert names.interval("age", 0, encoded, np.inf) == "(40, inf)"
    assert names.interval("hour", 0, 7.0, 7.0) == "7"
    assert names.interval("vector", 1, 0.5, 1.0) == "element 1 (0.5, 1)"
