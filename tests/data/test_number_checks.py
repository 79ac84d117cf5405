from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lfm4ads_tf.data.number_checks import check_numbers
from lfm4ads_tf.features.fitted_encoding import FittedEncoding


@pytest.fixture(scope="module")
def world(make_ads: Callable[..., Any], ads_features: Callable[..., Any]) -> Any:
    """Hours with some far values, the same prices for all, and vectors in the thousands."""

    def change(tables: Any) -> None:
        for k, row in enumerate(tables["log"]):
            row["hour"] = 1e6 if k > 400 and k % 20 == 0 else k % 24
        for item in tables["items"]:
            item["price"] = 3.5
            item["vector"] = "20000|-90000"

    features = ads_features("user_id", "item_id", "price", "vector", "hour", "item_love")
    number = {"owner": "context", "kind": "numeric", "column": "hour"}
    features |= {"bounded": number, "wide": {**number, "bound": 1e9}}
    features["log"] = {**number, "transform": "log", "bound": 2}
    return make_ads(change, features=features)


def test_values_beyond_the_bound_are_counted(world: Any) -> None:
    counts = world.cache.manifest["beyond_bound"]
    hour = world.raw.columns["hour"].to_numpy(zero_copy_only=False)[40:]
    first = hour[:60]
    beyond = {"bounded": np.abs((hour - first.mean()) / first.std()) > 10}
    logs = np.log1p(hour)
    beyond["log"] = np.abs((logs - logs[:60].mean()) / logs[:60].std()) > 2
    splits = {"train": slice(0, 360), "valid": slice(360, 420), "test": slice(420, 480)}
    assert counts == {
        name: {split: int(of[rows].sum()) for split, rows in splits.items()}
        for name, of in beyond.items()
    }
    assert counts["bounded"] == {"train": 0, "valid": 0, "test": 3}
    assert counts["log"]["train"] > 0


def test_what_makes_a_poor_input_is_told(world: Any, caplog: pytest.LogCaptureFixture) -> None:
    fitted = FittedEncoding.load(world.folder / "encoding")
    arrays = {name: np.asarray(world.cache.column(name)) for name in ("ids", "dense")}
    rows = {name: world.cache.rows_of(name) for name in ("train", "valid", "test")}
    check_numbers(world.spec, fitted, world.raw.columns, world.cache.layout, arrays, rows)
    told = {r.getMessage().split("'")[1]: r.getMessage() for r in caplog.records}
    assert told.keys() == {"bounded", "log", "hour", "vector", "price"}
    assert "3 of 60 known test values lie beyond 10 deviations" in told["bounded"]
    assert "valid" not in told["bounded"] and "furthest value 1e+06" in told["bounded"]
    assert "of its logarithm" in told["log"]
    assert "input of up to 1e+06, without a bound" in told["hour"]
    assert "input of up to 90000" in told["vector"]
    assert "known values fall into bucket 1 of 2 (boundaries 3.5)" in told["price"]
