"""Differences between compared models: the family of Holm's correction, unlike labels, leaders."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lfm4ads_tf.experiments.model_differences import ComparedScores, correct
from lfm4ads_tf.metrics import auc, holm
from lfm4ads_tf.metrics.detectable_difference import detectable_difference

ROWS, SEEDS = 400, (0, 1, 2)


def compared(
    noises: dict[str, float], *, other_labels: tuple[str, ...] = (), **place: str
) -> ComparedScores:
    """Models whose scores are a truth and noise; some are scored on half of the rows."""
    draw = np.random.default_rng(0)
    truth = draw.normal(size=ROWS)
    labels = (draw.random(ROWS) < 1 / (1 + np.exp(-2 * truth))).astype(np.float32)
    halves = np.where(np.arange(ROWS) % 2, labels, np.nan).astype(np.float32)
    return ComparedScores(
        {"scenario": "all", "task": "click", **place},
        {
            model: {seed: truth + noise * draw.normal(size=ROWS) for seed in SEEDS}
            for model, noise in noises.items()
        },
        {model: halves if model in other_labels else labels for model in noises},
        draw.integers(0, 80, ROWS),
    )


NOISES = {"base": 1.0, "good": 0.2, "same": 1.0, "poor": 5.0}


def test_differences_are_paired_by_seed_and_say_what_they_could_find() -> None:
    scored = compared(NOISES)
    found = {e["model"]: e for e in scored.against("base")}
    assert set(found) == {"good", "same", "poor"}
    labels = scored.targets["base"]
    for model, entry in found.items():
        pairs = [
            (auc(labels, scored.scores[model][s]) or 0)
            - (auc(labels, scored.scores["base"][s]) or 0)
            for s in SEEDS
        ]
        assert entry["diff_mean"] == pytest.approx(np.mean(pairs), abs=1e-12)
        assert entry["diff_sd"] == pytest.approx(np.std(pairs, ddof=1), abs=1e-12)
        assert entry["detectable"] == pytest.approx(detectable_difference(entry["diff_sd"], 3))
        assert entry["low"] < entry["diff_mean"] < entry["high"]
    pooled = np.sqrt(np.mean([e["diff_sd"] ** 2 for e in found.values()]))
    for entry in found.values():
        assert entry["detectable_pooled"] == pytest.approx(detectable_difference(pooled, 3))


def test_models_of_other_labels_are_not_compared() -> None:
    scored = compared(NOISES, other_labels=("good", "poor"))
    found = {e["model"]: e for e in scored.against("base")}
    for model in ("good", "poor"):
        assert not found[model]["comparable"]
        assert {found[model][k] for k in ("diff_mean", "p", "low", "detectable")} == {None}
        assert found[model]["detectable_pooled"] is None
    assert found["same"]["comparable"] and found["same"]["diff_mean"] is not None
    among = {e["model"]: e["comparable"] for e in scored.against("good")}
    assert among == {"base": False, "same": False, "poor": True}
    leader = scored.leader()
    assert leader is not None and leader["other_labels"] == ["good", "poor"]


def test_the_leader_is_told_with_its_ties() -> None:
    leader = compared(NOISES).leader()
    assert leader is not None
    assert leader["model"] == "good" and "poor" in leader["behind"]
    equal = compared({"base": 1.0, "same": 1.0}).leader()
    assert equal is not None and len(equal["ties"]) == 1 and not equal["behind"]


def test_holm_corrects_over_models_and_tasks_of_one_baseline_on_all_rows() -> None:
    comparisons: list[dict[str, Any]] = []
    for task in ("click", "like"):
        for scenario in ("all", "feed"):
            scored = compared(NOISES, task=task, scenario=scenario)
            for baseline in ("base", "poor"):
                comparisons += scored.against(baseline)
    correct([entry for entry in comparisons if entry["scenario"] == "all"])
    for baseline in ("base", "poor"):
        family = [e for e in comparisons if e["baseline"] == baseline and e["scenario"] == "all"]
        assert len(family) == 2 * 3
        assert [e["p_holm"] for e in family] == holm([e["p"] for e in family])
    assert {e["p_holm"] for e in comparisons if e["scenario"] != "all"} == {None}


def test_a_place_of_one_class_has_no_difference() -> None:
    scored = compared(NOISES)
    one = ComparedScores(
        scored.place,
        scored.scores,
        dict.fromkeys(scored.scores, np.zeros(ROWS, np.float32)),
        scored.users,
    )
    assert one.leader() is None
    entries = one.against("base")
    assert all(e["comparable"] and e["diff_mean"] is None for e in entries)


def test_a_few_contradicting_labels_are_left_out_and_many_are_another_event() -> None:
    scored = compared({"base": 1.0, "good": 0.2})
    labels = scored.targets["base"]
    for differing, comparable in ((4, True), (5, False)):  # 1 % of 400 rows
        other = labels.copy()
        other[:differing] = 1 - other[:differing]
        pair = ComparedScores(
            scored.place, scored.scores, {"base": labels, "good": other}, scored.users
        )
        (entry,) = pair.against("base")
        assert entry["comparable"] == comparable
        if comparable:
            rest = slice(differing, None)
            means = [
                np.mean([auc(labels[rest], s[rest]) for s in scored.scores[m].values()])
                for m in ("good", "base")
            ]
            assert entry["rows_left_out"] == differing
            assert entry["diff_mean"] == pytest.approx(means[0] - means[1], abs=1e-12)
    leader = pair.leader()
    assert leader is not None and leader["other_labels"] == ["good"]
