"""A spec builder shared by the tests of the features package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.spec_file import parse_spec

BASE: dict[str, Any] = {
    "name": "example",
    "log": {
        "files": ["log.csv"],
        "user_columns": ["age", "level", "segments"],
        "item_columns": ["brand", "tags", "tag_weights", "price", "vector"],
    },
    "keys": {"user": "user_id", "item": "item_id", "time": "time", "scenario": "tab"},
    "tasks": {"click": "is_click", "like": "is_like"},
    "split": {"by": "day", "train_until": 6, "valid_until": 8},
    "features": {"user_id": {"kind": "hashed", "owner": "user"}},
}


@pytest.fixture(scope="session")
def make_spec() -> Callable[..., FeatureSpec]:
    """Builds a spec from its features and other top-level keys."""

    def make(features: dict[str, Any] | None = None, **over: Any) -> FeatureSpec:
        raw = {**BASE, **over}
        if features is not None:
            raw["features"] = features
        return parse_spec({k: v for k, v in raw.items() if v is not None})

    return make
