"""Warnings: each rule on made-up numbers, at its threshold."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from lfm4ads_tf.data.splits import SPLITS
from lfm4ads_tf.metrics import auc_resamples
from lfm4ads_tf.pipeline.diagnosis import (
    KINDS,
    calibrations,
    compared,
    few_labels,
    few_rows,
    lost_exports,
    no_positive,
    warning,
)
from lfm4ads_tf.pipeline.intervals import Draws, add_intervals
from lfm4ads_tf.pipeline.warning_lines import print_warnings

PLACE = ("tab", "click", "test")


def drawn(noise: dict[str, float], seeds: int = 2) -> Draws:
    """Methods by how noisy their scores are: more noise, a lower AUC."""
    random = np.random.default_rng(0)
    user = np.repeat(np.arange(400), 10)
    labels = random.integers(0, 2, len(user))
    base = labels + random.normal(size=len(user))
    scores = {
        (method, seed): base + size * np.random.default_rng([k, seed]).normal(size=len(user))
        for k, (method, size) in enumerate(noise.items())
        for seed in range(seeds)
    }
    found = auc_resamples(labels, list(scores.values()), user, resamples=100)
    assert found is not None
    return Draws(list(scores), found)


def kinds(found: list[dict[str, Any]]) -> dict[str, list[str]]:
    return {w["kind"]: list(w["numbers"]["methods"]) for w in found}


def test_below_and_no_better_are_told_apart_by_the_interval() -> None:
    noise = {"none": 0.3, "upstream": 1.0, "full": 0.31, "feature/linear/UR": 0.0}
    draws = drawn(noise)
    found = compared({PLACE: draws}, ["tab"], {"tab": ["full", "feature/linear/UR"]})
    assert kinds(found) == {"below_none": ["upstream"], "no_better_than_none": ["full"]}
    below, equal = (w["numbers"]["methods"] for w in found)
    assert below["upstream"]["high"] < 0
    assert equal["full"]["difference"] <= 0 <= equal["full"]["high"]
    difference = draws.mean("upstream") - draws.mean("none")
    assert below["upstream"]["difference"] == pytest.approx(difference)
    assert f"{100 * difference:+.2f} points" in found[0]["message"]
    assert {(w["scenario"], w["task"]) for w in found} == {("tab", "click")}


def test_trees_judge_upstream_none_and_transfer_where_they_are_there() -> None:
    noise = {"upstream": 1.0, "none": 1.2, "full": 0.0, "lightgbm": 0.4}
    found = compared({PLACE: drawn(noise)}, ["tab"], {"tab": ["full"]})
    trees = {k: v for k, v in kinds(found).items() if "trees" in k}
    assert trees == {"below_trees": ["upstream", "none"]}
    (message,) = [w["message"] for w in found if w["kind"] == "below_trees"]
    assert message.count("points") == 2 and "below lightgbm" in message
    del noise["lightgbm"]
    assert "below_trees" not in kinds(compared({PLACE: drawn(noise)}, ["tab"], {"tab": ["full"]}))
    # all rows: no downstream model, so that only the upstream can be judged
    everywhere = {("all", "click", "test"): drawn({"upstream": 1.0, "lightgbm": 0.0})}
    assert kinds(compared(everywhere, ["tab"], {})) == {"below_trees": ["upstream"]}
    valid = {("tab", "click", "valid"): drawn({"upstream": 1.0, "none": 0.0})}
    assert compared(valid, ["tab"], {}) == []


def entry(method: str = "full", **more: Any) -> dict[str, Any]:
    identity = {"stage": "downstream", "scenario": "tab", "task": "click", "method": method}
    identity |= {"slice": "all", "refresh": "frozen", "split": "test", "seed": 0}
    counts = {"rows": 1000, "positives": 500, "metrics": {"calibration": 1.0, "auc": 0.7}}
    return {**identity, **counts, **more}


@pytest.mark.parametrize(
    ("value", "positives", "warned"),
    [
        (0.9, 100, False),
        (1.1, 100, False),
        (0.899, 100, True),
        (1.101, 100, True),
        (0.5, 99, False),
    ],
)
def test_calibration_of_what_is_exported(value: float, positives: int, warned: bool) -> None:
    off = entry(metrics={"calibration": value}, positives=positives)
    others = [
        entry("none", metrics={"calibration": 0.1}),  # is not exported
        entry(metrics={"calibration": 0.1}, slice="cold_item"),
        entry(metrics={"calibration": 0.1}, refresh="daily"),
        entry(metrics={"calibration": None}, split="valid"),
    ]
    found = calibrations([off, *others], {"tab": "full"})
    assert [w["kind"] for w in found] == ["calibration"] * warned
    if warned:
        assert found[0]["numbers"]["calibration"] == pytest.approx(value)
        assert "test rows" in found[0]["message"]


def test_calibration_is_the_mean_over_seeds_and_the_upstreams_on_all_rows() -> None:
    of = {"stage": "upstream", "scenario": "all", "method": "upstream"}
    found = calibrations(
        [entry(**of, seed=k, metrics={"calibration": v}) for k, v in enumerate((0.7, 0.9))], {}
    )
    assert [w["numbers"]["calibration"] for w in found] == [pytest.approx(0.8)]
    assert found[0]["scenario"] == "all"


@pytest.mark.parametrize(
    ("positives", "warned"), [(99, True), (100, False), (900, False), (901, True), (0, True)]
)
def test_few_positives_or_negatives(positives: int, warned: bool) -> None:
    twice = [entry(positives=positives), entry("none", positives=positives)]
    found = few_labels([*twice, entry(positives=3, slice="cold_item")])
    assert len(found) == warned
    if warned:
        said = f"{positives} positives and {1000 - positives:,} negatives in test"
        assert found[0]["message"] == said
    assert few_labels([entry(rows=0, positives=0)]) == []
    (both,) = few_labels([entry(positives=7), entry(positives=8, split="valid")])
    assert both["numbers"]["valid"] == {"positives": 8, "negatives": 992}
    of_upstream = entry(stage="upstream", scenario="tiny", positives=1)
    assert [w["scenario"] for w in few_labels([of_upstream, entry(positives=7)])] == ["tab", "tiny"]
    old = entry()
    del old["positives"]
    assert few_labels([old]) == []


def cache_of(period: list[int], labels: list[float], names: list[str]) -> Any:
    rows = np.arange(len(period))
    return SimpleNamespace(
        period=np.array(period),
        labels=np.array(labels)[:, None],
        manifest={"periods": names},
        layout=SimpleNamespace(tasks=["click"]),
        rows_of=lambda split, name=None: rows if split in SPLITS else rows[:0],
    )


def test_periods_with_few_rows_and_without_a_positive() -> None:
    period = [-1] * 5 + [0] * 20 + [1] * 2 + [2] * 21 + [3] * 1
    cache = cache_of(period, [1.0] * len(period), ["mon", "tue", "wed", "thu"])
    (found,) = few_rows(cache)  # median 11: 2 rows are not fewer than a tenth of it, 1 row is
    assert found["numbers"] == {"period": "thu", "rows": 1, "median": 11.0}
    labels = [np.nan, 0.0, 0.0, 1.0, np.nan]
    cache = cache_of([0, 0, 1, 2, 3], labels, ["a", "b", "c", "d"])
    found = no_positive(cache, ["tab"])
    assert [w["scenario"] for w in found] == ["all", "tab"]
    assert found[0]["numbers"] == {"periods": ["a", "b"], "of": 3}


def test_lost_exports_and_their_place_in_the_terminal() -> None:
    outcomes = [
        {"model": "a", "state": "published", "version": 1, "reason": ""},
        {"model": "b", "state": "refused", "version": 2, "reason": "[x] differs"},
    ]
    (lost,) = lost_exports(outcomes)
    assert lost["message"] == "b refused; version 2 stays: [x] differs"
    few = [warning("few_labels", f"n {k}", {}, "tab", "click") for k in range(6)]
    console = Console(record=True, width=200, file=io.StringIO())
    print_warnings({"warnings": [lost, *few, warning("untimed", "told above", {})]}, console)
    lines = console.export_text().strip().splitlines()
    assert lines[0].startswith("Warnings (7,")
    assert lines[1] == "Few positives or negatives: tab, click: n 0"
    more = "and 2 more, all in metrics.json and the report"
    assert lines[5] == f"Few positives or negatives: {more}"
    assert lines[6] == "Export not published: b refused; version 2 stays: [x] differs"
    assert list(KINDS)[-1] == "export_lost"  # what is appended after an export stays in order


def test_intervals_go_to_whole_frozen_results_alone() -> None:
    draws = drawn({"full": 0.5})
    found = [entry(seed=1), entry(slice="cold_item"), entry(refresh="daily"), entry("absent")]
    add_intervals(found, {PLACE: draws})
    low, high = (found[0]["metrics"][k] for k in ("auc_low", "auc_high"))
    assert low < draws.resampled.values[1] < high
    assert "auc_low" not in found[1]["metrics"] and "auc_low" not in found[2]["metrics"]
    assert found[3]["metrics"]["auc_low"] is None
