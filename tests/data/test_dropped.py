"""Every row and value that reaches no model is counted, in one line per kind."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lfm4ads_tf.config import Resolved, RunConfig
from lfm4ads_tf.data.dropped import tell_dropped, tell_others, tell_unscored
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.spec_file import parse_spec
from lfm4ads_tf.pipeline.evaluate import evaluate
from lfm4ads_tf.pipeline.prepare import _tell_unknown_scenarios
from lfm4ads_tf.pipeline.run import Run

FEATURES = {
    "site": {"owner": "context", "kind": "identity", "size": 5},
    "slot": {"owner": "context", "kind": "identity", "size": 3},
    "sites": {"owner": "context", "kind": "multi", "table": "site"},
    "price": {"owner": "context", "kind": "numeric"},
    "depth": {"owner": "context", "kind": "numeric", "transform": "buckets"},
    "tags": {"owner": "context", "kind": "multi", "weights": "shares"},
}


def spec_of(**over: Any) -> FeatureSpec:
    return parse_spec(
        {
            "name": "m",
            "log": {"files": ["log.csv"]},
            "keys": {"user": "u", "item": "i", "time": "t", "scenario": "tab"},
            "tasks": {"click": "click"},
            "split": {"by": "day", "train_until": 6, "valid_until": 7},
            "features": FEATURES,
            **over,
        }
    )


def columns(**over: Any) -> dict[str, Any]:
    """Four rows in which nothing is dropped."""
    good = {
        "site": pa.array([0, 1, 4, None], pa.int64()),
        "slot": pa.array([0, 1, 2, 2], pa.int64()),
        "sites": pa.array([["1", "2"], [], ["4", ""], ["0"]]),
        "price": pa.array([1.5, None, -3e38, 0.0]),
        "depth": pa.array([1.0, 2.0, 3.0, 4.0]),
        "tags": pa.array([["a", "b"], [], ["c"], ["d"]]),
        "shares": pa.array([[0.5, 0.5], [], [1.0], [2.0]]),
        "tab": pa.array(["home", "home", "music", "music"]),
    }
    return {**good, **over}


PARTS = {"train": np.array([0, 1]), "test": np.array([2, 3])}
KNOWN = np.array([0, 0, 1, 1])


def told(caplog: pytest.LogCaptureFixture, held: dict[str, Any], scenario: Any = KNOWN) -> Any:
    caplog.clear()
    tell_dropped(spec_of(), held, scenario, PARTS)
    return [record.getMessage() for record in caplog.records]


def test_nothing_is_told_where_nothing_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    assert told(caplog, columns()) == []


def test_ids_outside_of_their_table_are_one_line_with_the_size_to_give(
    caplog: pytest.LogCaptureFixture,
) -> None:
    held = columns(
        site=pa.array([1, 5, 5, 3], pa.int64()),
        slot=pa.array([0, -2, 9, None], pa.int64()),
        sites=pa.array([["1", "5"], ["x"], ["07"], ["99"]]),
    )
    (line,) = told(caplog, held)
    assert "'site' 1 train, 1 test not in [0, 5), ids run from 1 to 5: `size: 6`" in line
    assert "'slot' 1 train, 1 test not in [0, 3), largest 9: `size: 10`" in line
    assert "'sites' (table 'site') 2 train, 2 test not in [0, 5), largest 99" in line


def test_numbers_beyond_float32_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    most = np.finfo(np.float64).max
    held = columns(
        price=pa.array([most, 1.0, -most, most]),
        depth=pa.array([1.0, None, 1e39, 2.0]),
        shares=pa.array([[0.5, 1e40], [], [1.0], [2.0]]),
    )
    (line,) = told(caplog, held)
    assert "'price' 1 train, 2 test such as 1.79769e+308" in line
    assert "'depth' 1 test such as 1e+39" in line
    assert "'tags' 1 train such as 1e+40" in line and "`missing`" in line


def test_rows_in_no_scenario_are_named(caplog: pytest.LogCaptureFixture) -> None:
    held = columns(tab=pa.array(["home", None, "books", "music"]))
    (line,) = told(caplog, held, np.array([0, -1, -1, 1]))
    assert "1 of 2 train, 1 of 2 test rows; 'books' 1, none 1" in line
    caplog.clear()
    tell_unscored(np.array([0, -1, -1, 1]), {"valid": PARTS["train"], "test": PARTS["test"]})
    assert "no scenario's results: 1 of 2 valid, 1 of 2 test rows" in caplog.text


def test_few_of_many_features_are_named(caplog: pytest.LogCaptureFixture) -> None:
    names = [f"x{k}" for k in range(30)]
    spec = spec_of(features={n: {"owner": "context", "kind": "numeric"} for n in names})
    held = {n: pa.array([1e39, 0.0, 0.0, 0.0]) for n in names} | {"tab": columns()["tab"]}
    tell_dropped(spec, held, KNOWN, PARTS)
    (record,) = caplog.records
    assert "'x4' 1 train" in record.getMessage() and "'x5'" not in record.getMessage()
    assert "and 25 more" in record.getMessage()


def test_rows_of_other_scenarios_are_counted_where_a_ranker_scores_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    segments = {"books": {"by": "genre", "values": ["book"]}}
    spec = spec_of(segments=segments)
    scenarios = ["home", "music"]
    rows = {"tab": columns()["tab"], "genre": pa.array(["book", "film", None, "book"])}
    tell_others(spec, "home", scenarios, KNOWN, rows)
    assert "2 of 4 rows are not of 'home', whose model scores them all the same: 'music' 2" in (
        caplog.text
    )
    caplog.clear()
    tell_others(spec, "books", scenarios, KNOWN, rows)
    assert "2 of 4 rows are not of 'books'" in caplog.text and "'film' 1, none 1" in caplog.text
    caplog.clear()
    tell_others(spec, "books", scenarios, KNOWN, {"genre": pa.array(["book"] * 4)})
    tell_others(spec, "books", scenarios, KNOWN, {})
    tell_others(spec, "music", scenarios, np.ones(4, int), rows)
    assert not caplog.records


def test_prepare_and_evaluate_count_what_they_drop(
    make_ads: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    def change(tables: dict[str, list[dict[str, Any]]]) -> None:
        for k, row in enumerate(tables["users"]):
            row["level"] = 1 + k % 4
        tables["users"] += [{**tables["users"][0], "user_id": ""}] * 2
        tables["items"][0]["price"] = "1.7976931348623157e308"
        for row in [r for r in tables["log"] if r["day"] == 7][:5]:
            row["tab"] = "books"
        for row in tables["log"][:4]:
            row["click"], row["stars"] = "", ""
            row["tab"] = ""

    sets = {"some": {"by": "segment", "values": ["s1", "NO", "010"]}}
    world = make_ads(change, segments=sets, ads={"by": "brand", "values": ["b1", "no"]})
    raw = world.raw
    level = np.array([-1 if v is None else v for v in raw.columns["level"].to_pylist()])
    wrong = int((level[raw.split == 0] == 4).sum())
    assert f"{wrong:,} train" in caplog.text
    assert "ids run from 1 to 4: `size: 5`" in caplog.text
    assert "'price'" in caplog.text and "numbers beyond float32" in caplog.text
    tests = int((raw.split == 2).sum())
    assert f"5 of {tests} test rows; 'books' 5, none 4" in caplog.text
    assert "rows whose labels are all unknown" in caplog.text and "4 of" in caplog.text
    assert "2 of 15 rows of table 'users' have no 'user_id'" in caplog.text
    assert "`segments.some.values`: 2 of 3 values are in no row: 'NO', '010'" in caplog.text
    assert "`ads.values`: 1 of 2 values are in no row: 'no'; 'brand' holds 'b" in caplog.text
    ids = world.cache.column("ids")
    k = [f.name for f in world.cache.layout.single].index("level")
    assert ((ids[:, k] == -1) == ((level == 4) | (level == -1))).all()
    caplog.clear()
    evaluate(Run(world.folder.parent, Resolved(spec=world.spec, config=RunConfig())))
    assert f"no scenario's results: 5 of {tests} test rows" in caplog.text


def test_scenarios_that_no_row_is_of_are_told(ads: Any, caplog: pytest.LogCaptureFixture) -> None:
    config = RunConfig.model_validate(
        {"scenarios": ["t0", "NO"], "retrieval": {"enabled": True, "scenarios": ["all", "t9"]}}
    )
    _tell_unknown_scenarios(SimpleNamespace(cache=ads.cache, config=config))  # type: ignore[arg-type]
    rows = len(ads.cache.rows_of("train", "t0"))
    first, second = caplog.messages
    assert "scenarios: 1 of 2 are in no training row: 'NO'; the data have" in first
    assert f"'t0' ({rows:,} rows)" in first
    assert "retrieval.scenarios: 1 of 2 are in no training row: 't9'" in second
