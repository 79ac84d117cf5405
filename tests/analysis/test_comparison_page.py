"""The page of a comparison: all of it is there, and it loads nothing."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from lfm4ads_tf.analysis.comparison_page import comparison_page

MODELS, TASKS = ["shared_bottom", "mmoe", "a<b"], ["click", "like & love"]
SCENARIOS = ["feed", "story"]


def mean(value: float | None, sd: float | None = 0.01) -> dict[str, float | None]:
    return {"mean": value, "sd": None if value is None else sd}


def entry(model: str, task: str, scenario: str, part: str, labels: bool) -> dict[str, Any]:
    value = None if part == "cold_user" else 0.7 + 0.01 * MODELS.index(model)
    metrics = {"auc": mean(value), "gauc": mean(0.6), "logloss": mean(0.3), "calibration": mean(1)}
    place = {"model": model, "task": task, "scenario": scenario, "slice": part}
    return {
        **place,
        "rows": {"feed": 300, "story": 600}.get(scenario, 900),
        "positives": 90,
        "labels": labels,
        "metrics": metrics,
    }


def abundance(value: float) -> dict[str, Any]:
    table = {"layer": "embeddings", "table": "user<id>", "fields": ["user<id>"]}
    return {**table, "rows": 90, "width": 8, "sets": [value], "joined": value}


def document(*, seeds: int = 3, other: tuple[str, str] | None = None) -> dict[str, Any]:
    """A comparison; `other` is a model and a task that are scored on other labels."""
    places = [("all", "all"), ("feed", "all"), ("story", "all"), ("all", "cold_user")]
    comparisons = []
    for task in TASKS:
        for model in MODELS[1:]:
            same = (model, task) != other
            several = same and seeds > 1
            comparisons.append(
                {
                    "scenario": "all",
                    "task": task,
                    "model": model,
                    "baseline": "shared_bottom",
                    "comparable": same,
                    "rows_left_out": 0 if same else None,
                    "diff_mean": 0.0123 if same else None,
                    "diff_sd": 0.004 if several else None,
                    "p": 0.01 if several else None,
                    "p_holm": 0.04 if several else None,
                    "low": 0.0011 if same else None,
                    "high": 0.0234 if same else None,
                    "detectable": 0.0131 if several else None,
                    "detectable_pooled": 0.0142 if several else None,
                }
            )
    tried = {"valid": 0.71, "epochs": 5, "best_epoch": 4, "seconds": 3.0, "examples_per_s": 9876.0}
    rates = [{"rate": 0.5, **tried}, {"rate": 2.0, "valid": None, "diverged": "at step 3"}]
    costs = [
        {
            "model": model,
            "tables": 123456,
            "outside": 7890,
            "sets": 1,
            "rate": 0.5,
            "table_learning_rate": 0.025,
            "dense_learning_rate": 0.0005,
            "rates": rates,
            "trainings": [{"seed": s, **tried} for s in range(seeds)],
            "examples_per_s": 9876.0,
        }
        for model in MODELS
    ]
    leaders = [
        {
            "scenario": "all",
            "task": task,
            "model": "a<b",
            "auc": 0.72,
            "ties": ["mmoe"],
            "behind": ["shared_bottom"],
            "other_labels": [],
        }
        for task in TASKS
    ]
    return {
        "spec": "small",
        "axis": "task",
        "command": "lfm4ads-multitask --models 'a<b'",
        "models": MODELS,
        "baselines": ["shared_bottom"],
        "seeds": list(range(seeds)),
        "tasks": TASKS,
        "scenarios": SCENARIOS,
        "rows": {"train": 5000, "valid": 1000, "test": 900},
        "auxiliary_rows": 0,
        "auxiliary_passes": 1,
        "split": {"by": "day", "train_until": 20240311.0, "valid_until": 20240313.0},
        "rates": [0.5, 2.0],
        "batch_size": 512,
        "epochs": 10,
        "patience": 1,
        "truth": False,
        "costs": costs,
        "abundance": [
            {"model": "mmoe", "seed": seed, "tables": [abundance(3.5 + seed)]}
            for seed in range(seeds)
        ],
        "leaders": leaders,
        "means": [
            entry(m, t, s, part, (m, t) != other)
            for m in MODELS
            for t in TASKS
            for s, part in places
        ],
        "comparisons": comparisons,
        "config": {"upstream": {"mmoe": {"experts": 4}}},
    }


class _Reader(HTMLParser):
    """The text, and whatever a tag would load."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        loading = {"src", "srcset", "data", "poster", "href", "xlink:href"}
        self.loads += [v or "" for k, v in attrs if k in loading and not (v or "").startswith("#")]
        if tag in ("script", "link", "iframe", "object"):
            self.loads.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> _Reader:
    reader = _Reader()
    reader.feed(page)
    return reader


def test_every_model_task_and_scenario_is_there_and_nothing_is_loaded() -> None:
    page = comparison_page(document())
    found = read(page)
    assert not found.loads
    assert "@import" not in page and not re.search(r"url\(", page)
    for name in (*MODELS, *TASKS, *SCENARIOS, "cold_user"):
        assert name in found.text
    assert "<b:" not in page and html.escape("a<b") in page
    for section in (
        "results",
        "differences",
        "scenarios",
        "slices",
        "cost",
        "rates",
        "abundance",
        "made",
    ):
        assert f'id="{section}"' in page and f'href="#{section}"' in page


def test_leaders_ties_and_numbers_are_told() -> None:
    text = " ".join(read(comparison_page(document())).text.split())
    assert "click: a<b leads with AUC 0.7200; a tie with mmoe; behind: shared_bottom." in text
    for number in ("+1.23 ± 0.40", "+0.11 to +2.34", "0.040", "1.31", "1.42", "123,456", "9,876"):
        assert number in text
    assert "0.7100 (4)" in text and "diverged" in text
    assert "split: by day, train_until 20240311, valid_until 20240313." in text
    assert "a further rate may be better: shared_bottom, mmoe, a<b." in text
    assert "lfm4ads-multitask --models 'a<b'" in text


def test_with_scenarios_as_the_axis_each_has_its_differences_and_its_leader() -> None:
    made = document()
    assert "by-scenario" not in comparison_page(made)
    made["axis"] = "scenario"
    for scenario, points in (("feed", 0.0321), ("story", 0.0222)):
        leader = {**made["leaders"][0], "scenario": scenario}
        made["leaders"].append(leader)
        made["comparisons"] += [
            {**entry, "scenario": scenario, "diff_mean": points}
            for entry in made["comparisons"]
            if entry["scenario"] == "all"
        ]
    page = comparison_page(made)
    text = " ".join(read(page).text.split())
    assert 'id="by-scenario"' in page and "models, scenarios and tasks" in text
    assert "story, click: a<b leads with AUC 0.7200" in text
    own = text[text.index("The same on each scenario's own rows") :]
    assert own.index("story") < own.index("+2.22") < own.index("feed") < own.index("+3.21")


def test_the_whisker_is_the_interval() -> None:
    """Of an axis from -5 to 5 points the interval 0.11 to 2.34 is at 51.1 % to 73.4 %."""
    page = comparison_page(document())
    assert 'x1="51.1%" x2="73.4%"' in page


def test_one_seed_is_said_and_shown_pale() -> None:
    page = comparison_page(document(seeds=1))
    assert "One seed: deviations are unknown" in read(page).text
    assert page.count('fill-opacity="0.5"') == 4
    assert 'fill-opacity="0.5"' not in comparison_page(document())


@pytest.mark.parametrize("model", MODELS[1:])
def test_models_of_other_labels_are_told_apart(model: str) -> None:
    found = document(other=(model, "click"))
    found["leaders"][0]["other_labels"] = [model]
    text = " ".join(read(comparison_page(found)).text.split())
    assert f"click of {model} is scored on other labels than the spec's" in text
    assert f"{model} (other labels)" in text
    assert f"scored on other labels and not compared: {model}." in text


def test_the_largest_scenario_stands_first() -> None:
    page = comparison_page(document())
    scenarios = page[page.index('id="scenarios"') : page.index('id="slices"')]
    assert scenarios.index(">story<") < scenarios.index(">feed<")


@pytest.mark.parametrize(
    ("passes", "told"),
    [
        (0, "5,000 training rows (700 auxiliary ones are left out), 1,000 validation rows"),
        (1, "5,000 training rows, before them 1 pass over 700 auxiliary ones, 1,000 validation"),
        (2, "before them 2 passes over 700 auxiliary ones,"),
    ],
)
def test_auxiliary_rows_are_told_as_they_were_used(passes: int, told: str) -> None:
    found = document() | {"auxiliary_rows": 700, "auxiliary_passes": passes}
    assert told in " ".join(read(comparison_page(found)).text.split())


def test_rows_of_other_labels_are_told_where_they_are_left_out() -> None:
    found = document(other=("mmoe", "click"))
    entry = found["comparisons"][0]
    entry |= {"comparable": True, "rows_left_out": 1234, "diff_mean": 0.01}
    text = " ".join(read(comparison_page(found)).text.split())
    assert "in 1,234 rows, which its differences leave out." in text
    assert "mmoe (1,234 rows left out)" in text


def test_abundance_is_told_by_model_and_left_out_where_there_is_none() -> None:
    known = document()
    page = comparison_page(known)
    section = page.split('id="abundance"')[1].split("</section>")[0]
    assert "4.50 ± 1.00 of 8" in section and "Model mmoe" in section
    assert "shared_bottom" not in section and "user&lt;id&gt;" in section
    known["abundance"] = []
    assert 'id="abundance"' not in comparison_page(known)
