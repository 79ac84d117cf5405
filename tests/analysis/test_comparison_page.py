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
            "upstream": model,
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
        "curves": {},
        "observed": [],
        "leaders": leaders,
        "results": [],
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


def auc_of_seed(model: str, seed: int, value: float | None, **other: Any) -> dict[str, Any]:
    place = {"model": model, "task": "click", "scenario": "all", "slice": "all", "seed": seed}
    return {**place, "labels": True, "metrics": {"auc": value}, **other}


def grown() -> dict[str, Any]:
    """Two curves from one model on; one model has no abundance, one no AUC of its second task."""
    made = document(seeds=2)
    made["curves"] = {"few & many": ["a<b", "shared_bottom"], "other": ["shared_bottom", "mmoe"]}
    for cost, tables in zip(made["costs"], (1000, 20_000, 400_000), strict=True):
        cost["tables"] = tables
    made["abundance"] = [
        {"model": model, "seed": seed, "tables": [abundance(3.0), abundance(top + seed), empty]}
        for model, top in (("shared_bottom", 5.0), ("a<b", 7.0))
        for seed in range(2)
        for empty in [{**abundance(0.0), "joined": None}]
    ]
    made["results"] = [
        auc_of_seed(model, seed, 0.1 * (place + 5) + 0.01 * seed)
        for place, model in enumerate(MODELS)
        for seed in range(2)
    ]
    # none of these is of all rows, of the spec's labels or known
    made["results"] += [
        auc_of_seed("mmoe", 0, 0.11, scenario="feed"),
        auc_of_seed("mmoe", 0, 0.12, slice="cold_user"),
        auc_of_seed("mmoe", 0, 0.13, task=TASKS[1], labels=False),
        auc_of_seed("mmoe", 1, None, task=TASKS[1]),
    ]
    return made


def test_curves_are_drawn_and_told_by_the_floats_in_tables() -> None:
    assert 'id="curves"' not in comparison_page(document())
    page = comparison_page(grown())
    assert not read(page).loads and 'href="#curves"' in page
    section = page.split('id="curves"')[1].split("</section>")[0]
    of_models = [row for row in table(section)[1:] if len(row) == 5]
    smallest = ["shared_bottom", "1,000", "0.5050 ± 0.0071", "–", "4.25 ± 0.35"]
    assert of_models == [
        smallest,
        ["a<b", "400,000", "0.7050 ± 0.0071", "–", "5.25 ± 0.35"],
        smallest,
        ["mmoe", "20,000", "0.6050 ± 0.0071", "–", "–"],
    ]
    # of the second task nothing is known to draw
    titles = re.findall(r'<svg role="img" aria-label="([^"]*)"', section)
    assert titles == ["click: test AUC", "information abundance"]
    assert "few &amp; many" in section


def table(section: str) -> list[list[str]]:
    """The cells of a section's table, row by row."""
    return [
        [read(cell).text for cell in re.findall(r"<t[dh].*?</t[dh]>", row, re.DOTALL)]
        for row in re.findall(r"<tr.*?</tr>", section, re.DOTALL)
    ]


def points(page: str, title: str) -> list[list[tuple[float, float]]]:
    """The lines of a figure that stand for curves, in pixels."""
    svg = page.split(f'aria-label="{title}"')[1].split("</svg>")[0]
    lines = re.findall(
        r'<path d="([^"]*)" clip-path="[^"]*" style="fill: none; stroke: var\(--c', svg
    )
    found = []
    for line in lines:
        numbers = [float(n) for n in re.findall(r"-?[\d.]+", line)]
        found.append([*zip(numbers[::2], numbers[1::2], strict=True)])
    return found


def test_a_curves_axis_is_logarithmic_and_its_whiskers_are_the_deviation() -> None:
    page = comparison_page(grown())
    lines = points(page, "click: test AUC")
    vertical = [line for line in lines if len({x for x, _ in line}) == 1]
    curves = [line for line in lines if line not in vertical]
    (one, many), (_, other) = sorted(curves, key=lambda line: -line[-1][0])
    # 1,000 to 20,000 to 400,000: equal steps of the logarithm, to hundredths of a pixel
    assert many[0] - other[0] == pytest.approx(other[0] - one[0], abs=0.02)
    unit = (one[1] - many[1]) / 0.2  # pixels of an AUC of 1
    assert unit > 100 and one[1] - other[1] == pytest.approx(0.1 * unit, abs=0.02)
    assert len(vertical) == 4
    for (_, low), (_, high) in vertical:
        assert abs(low - high) == pytest.approx(2 * 0.01 / 2**0.5 * unit, abs=0.02)


def test_what_a_name_stands_for_is_told_where_it_is_the_callers_own() -> None:
    made = document()
    assert "upstream" not in table(comparison_page(made).split('id="cost"')[1])[0]
    made["costs"][2]["upstream"] = "mmoe"
    rows = table(comparison_page(made).split('id="cost"')[1].split("</section>")[0])
    assert [row[:2] for row in rows] == [
        ["model", "upstream"],
        ["shared_bottom", "shared_bottom"],
        ["mmoe", "mmoe"],
        ["a<b", "mmoe"],
    ]


def test_what_models_are_observed_by_is_told() -> None:
    made = document(seeds=2)
    made["observed"] = [
        {"model": model, "seed": seed, "values": {name: value + seed / 1000}}
        for model, name, value in (
            ("a<b", "experts/correlation", 0.25),
            ("mmoe", "gates/entropy", 12.0),
        )
        for seed in range(2)
    ]
    page = comparison_page(made)
    section = page.split('id="observed"')[1].split("</section>")[0]
    assert table(section) == [
        ["number", "mmoe", "a<b"],
        ["experts/correlation", "–", "0.2505 ± 0.00071"],
        ["gates/entropy", "12 ± 0.00071", "–"],
    ]
    made["observed"] = []
    assert 'id="observed"' not in comparison_page(made)
