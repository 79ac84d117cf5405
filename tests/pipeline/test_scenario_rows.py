"""Which scenarios an upstream is told of, and that data it refuses are not kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.spec_file import parse_spec
from lfm4ads_tf.models.star import STAR
from lfm4ads_tf.models.upstream_config import UpstreamConfig
from lfm4ads_tf.pipeline.prepare import encode_files
from lfm4ads_tf.pipeline.scenario_rows import scenario_rows


def late_scenarios(tables: Any) -> None:
    """Rows of the last days in a scenario that training never saw, or in none."""
    late = [row for row in tables["log"] if row["day"] >= 6]
    for k, row in enumerate(late):
        row["tab"] = ("t9", "", row["tab"])[k % 3]


def test_scenarios_of_training_are_counted_and_later_ones_have_no_row(
    make_ads: Any, ads_features: Any
) -> None:
    world = make_ads(late_scenarios, features=ads_features("user_id", "item_id"))
    cache, rows = world.cache, scenario_rows(world.cache)
    assert cache.unseen_scenarios == ["t9"]
    assert list(rows) == [*cache.layout.scenarios, "t9"] and rows["t9"] == 0
    total = cache.manifest["rows"]["train"] + cache.manifest["auxiliary_rows"]
    assert sum(rows.values()) == total
    for k, name in enumerate(cache.layout.scenarios):
        mine = np.isin(cache.split, (0, 3)) & (cache.scenario == k)
        assert rows[name] == mine.sum() > 0
    del cache.manifest["unseen_scenarios"]  # data of an older version
    assert "t9" not in scenario_rows(cache)


def test_data_that_the_upstream_refuses_are_not_kept(
    ads_files: Callable[..., Path], ads_spec: dict[str, Any], ads_features: Any, tmp_path: Path
) -> None:
    spec = parse_spec({**ads_spec, "features": ads_features("user_id", "item_id")})
    check = partial(STAR.check_scenario_rows, UpstreamConfig(model="star"))
    folder = ads_files(tmp_path / "late", late_scenarios)
    with pytest.raises(UserError, match="no row of one in the log"):
        encode_files(spec, folder, tmp_path / "out" / "data", check_scenarios=check)
    assert not (tmp_path / "out" / "data").exists()
    encode_files(spec, folder, tmp_path / "kept")
    assert (tmp_path / "kept" / "manifest.json").exists()
