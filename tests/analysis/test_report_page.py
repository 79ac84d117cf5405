"""The page says what `metrics.json` says, escaped, whole, and without anything from outside."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from lfm4ads_tf.analysis.calibration_line import CalibrationLine
from lfm4ads_tf.analysis.page import report_page
from lfm4ads_tf.analysis.report_data import ReportData
from lfm4ads_tf.analysis.training_curve import TrainingCurve
from lfm4ads_tf.pipeline.evaluate import compare

Build = Callable[..., Any]
_VOID = {"meta", "wbr", "br", "img", "input", "link", "hr"}


class Page(HTMLParser):
    """Reads tables, checks that elements nest, and collects what could load something."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tables: list[list[list[str]]] = []
        self.words: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.tags: set[str] = set()
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.words.append(data)
        if {"td", "th"} & set(self._open):
            self.tables[-1][-1][-1] += data

    def table(self, head: str) -> list[list[str]]:
        """The first table with a column of this head, without its head row."""
        return next(t[1:] for t in self.tables if head in t[0])

    @property
    def text(self) -> str:
        return "".join(self.words)


def _values(document: dict[str, Any], metric: str, **chosen: str) -> list[float]:
    chosen = {"slice": "all", "split": "test", "refresh": "frozen", **chosen}
    return [
        e["metrics"][metric]
        for e in document["results"]
        if all(e[k] == v for k, v in chosen.items())
    ]


def _text(values: list[float]) -> str:
    return f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"


def test_tables_hold_the_numbers_of_metrics_json(document_of: Build, data_of: Build) -> None:
    document = document_of()
    page = Page(report_page(data_of(document)))

    rows = page.table("to none, AUC points")
    scenario = task = ""
    seen = 0
    for cells in rows:
        if len(cells) == 1:
            scenario, task, counts = cells[0].split(" · ")
            assert counts == "1,000 rows, 250 positives"
            continue
        who = {"stage": "downstream", "scenario": scenario, "task": task, "method": cells[0]}
        expected = [_text(_values(document, m, **who)) for m in ("auc", "gauc", "logloss")]
        assert [cells[1], cells[4], cells[5]] == expected
        mean = np.mean(_values(document, "auc", **who))
        assert cells[2] == f"{mean - 0.01:.4f} to {mean + 0.02:.4f}"
        assert cells[6] == _text(_values(document, "calibration", **who))
        assert cells[7] == _text(_values(document, "auc", **{**who, "refresh": "daily"}))
        if cells[0] == "none":
            assert cells[3] == "baseline"
        else:
            none = _values(document, "auc", **{**who, "method": "none"})
            diff = 100 * (np.array(_values(document, "auc", **who)) - none)
            assert cells[3].startswith(f"{diff.mean():+.2f} ± {diff.std(ddof=1):.2f} (p")
        seen += 1
    assert seen == 2 * 2 * 4

    upstream = page.table("rows")
    first = {"stage": "upstream", "scenario": "all", "task": "click", "method": "upstream"}
    assert upstream[0][:5] == [
        "all scenarios",
        "click",
        "1,000",
        "250",
        _text(_values(document, "auc", **first)),
    ]
    recall = _values(document, "recall@100", stage="retrieval")
    assert page.table("recall@100")[0][-1] == _text(recall)
    assert f"a test AUC of {_text(_values(document, 'auc', **first))} for click" in page.text


def test_best_of_a_column_is_marked_once(document_of: Build, data_of: Build) -> None:
    document = document_of(scenarios=("tab",), tasks=("click",))
    text = report_page(data_of(document)).split("The same on the validation split")[0]
    marked = re.findall(r'<strong class="best">([^<]*)</strong>', text)

    methods = ("upstream", "none", "feature/linear/UR")
    methods += ("feature/mlp/UR+IR+CR_user@cross_2+CR_item@cross_2",)

    def column(metric: str, refresh: str = "frozen") -> list[list[float]]:
        return [
            _values(document, metric, stage="downstream", method=m, refresh=refresh)
            for m in methods
        ]

    expected = [
        max(column("auc"), key=np.mean),
        max(column("gauc"), key=np.mean),
        min(column("logloss"), key=np.mean),
        min(column("calibration"), key=lambda v: abs(np.log(np.mean(v)))),
        max(column("auc", "daily"), key=np.mean),
    ]
    assert sorted(marked) == sorted(_text(v) for v in expected)


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        ((0.0101, 0.0100, 0.0099), "a gain"),
        ((-0.0101, -0.0100, -0.0099), "a loss"),
        ((0.01, -0.01, 0.004), "inside the noise"),
        ((0.01,), "untested (one seed)"),
    ],
)
def test_key_result_is_honest(
    document_of: Build, data_of: Build, gain: tuple[float, ...], words: str
) -> None:
    methods = ("none", "feature/linear/UR")
    document = document_of(("tab",), methods, seeds=len(gain), tasks=("click",))
    for entry in document["results"]:
        if entry["stage"] == "downstream":
            transfer = gain[entry["seed"]] if entry["method"] == "feature/linear/UR" else 0.0
            entry["metrics"]["auc"] = 0.7 + transfer
    document["comparisons"] = compare(document["results"])
    text = Page(report_page(data_of(document))).text
    line = re.search(r"validation picks feature/linear/UR\. (.*?)(The|$)", text, re.DOTALL)
    assert line is not None and words in line[1]
    assert f"click: {100 * np.mean(gain):+.2f}" in line[1]
    assert ("can be told from noise" in text) == (len(gain) == 1)


def test_transfer_is_chosen_on_validation(document_of: Build, data_of: Build) -> None:
    document = document_of(("tab",), ("none", "a", "b"), tasks=("click",))
    for entry in document["results"]:
        if entry["method"] in ("a", "b"):
            better = "a" if entry["split"] == "valid" else "b"
            entry["metrics"]["auc"] = 0.75 if entry["method"] == better else 0.65
    text = Page(report_page(data_of(document))).text
    assert "validation picks a." in text and "validation picks b." not in text


def test_undefined_metrics_are_dashes(document_of: Build, data_of: Build) -> None:
    document = document_of(("tab",), tasks=("click",))
    for entry in document["results"]:
        if entry["stage"] != "retrieval":
            entry["metrics"] = dict.fromkeys(("auc", "gauc", "calibration")) | {"logloss": 0.5}
        else:
            entry["metrics"] = {"recall@100": None}
    document["comparisons"] = compare(document["results"])
    page = Page(report_page(data_of(document)))
    for cells in page.table("to none, AUC points"):
        if len(cells) > 1:
            delta = "baseline" if cells[0] == "none" else "–"
            assert cells[1:] == ["–", "–", delta, "–", "0.5000 ± 0.0000", "–", "–"]
    assert not re.search(r"\b(nan|None|null)\b", page.text)


def test_names_are_escaped(document_of: Build, data_of: Build) -> None:
    scenario, method = '<script>alert("1")</script>&amp;', 'x"><img src=y onerror=z>$\\alpha$'
    document = document_of((scenario,), ("none", method), tasks=("<b>click",))
    document["point_in_time"] = {scenario: False}
    curve = TrainingCurve("downstream", scenario, method, 0, [(1, 0.7)], [(1, 0.5), (2, 0.4)])
    line = CalibrationLine(scenario, method, "<b>click", np.array([0.1]), np.array([0.2]))
    data = data_of(
        document,
        curves=[curve],
        calibrations=[line],
        tables=[{"name": "<i>", "rows": 3, "dim": 2}],
        artefacts=[("downstream/<u>\"'", "a & b", 10)],
        config="name: </pre><script>",
        command="run --set 'a=<s>'",
    )
    page = Page(report_page(data))
    assert not page.tags & {"script", "img", "i", "u", "s"}
    assert scenario in page.text and method in page.text and "</pre><script>" in page.text


def test_the_curve_of_a_chain_is_that_of_rows_not_learnt_yet() -> None:
    entries = [{"scenario": "all", "method": "upstream", "seed": 3}]
    watched = [{"phase": "period_1_pass_0", "value": 0.6, "step": 5, "rows": 9}]
    validated = [{"phase": "epoch_1", "value": 0.7, "step": 8}]
    for stored, expected in (
        ({"history": [], "curve": watched}, [(5, 0.6)]),
        ({"history": validated, "curve": []}, [(8, 0.7)]),
        ({"history": validated}, [(8, 0.7)]),  # results of an earlier version
    ):
        curve = TrainingCurve.from_results("upstream", {**stored, "entries": entries}, [])
        assert curve is not None and curve.validation == expected


def test_nothing_is_loaded_from_outside(document_of: Build, data_of: Build) -> None:
    curve = TrainingCurve("upstream", "all", "upstream", 0, [], [(50, 0.6), (100, 0.5)])
    line = CalibrationLine("all", "upstream", "click", np.array([0.1, 0.4]), np.array([0.2, 0.3]))
    text = report_page(data_of(document_of(), curves=[curve], calibrations=[line]))
    page = Page(text)
    assert "://" not in text and "@import" not in text
    assert not page.tags & {"script", "link", "img", "iframe", "object", "base"}
    for _, name, value in page.attributes:
        if name in ("href", "src", "xlink:href"):
            assert value.startswith(("#", "./"))
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    used = {v[1:] for _, n, v in page.attributes if n == "href" and v.startswith("#")}
    used |= {t[1:] for t in re.findall(r"url\(([^)]*)\)", text)}
    assert used <= set(ids)


@pytest.mark.parametrize("missing", ["upstream", "downstream", "retrieval", "all"])
def test_missing_stages_leave_a_whole_page(
    document_of: Build, data_of: Build, missing: str
) -> None:
    document = document_of()
    kept = [e for e in document["results"] if missing not in (e["stage"], "all")]
    document["results"], document["comparisons"] = kept, compare(kept)
    page = Page(report_page(data_of(document)))
    assert ("Transfer against none" in page.text) == (missing in ("upstream", "retrieval"))
    assert ("recall@100" in page.text) == (missing in ("upstream", "downstream"))
    assert "Run it again" in page.text


def test_a_run_without_the_baseline_is_not_compared(document_of: Build, data_of: Build) -> None:
    page = Page(report_page(data_of(document_of(methods=("feature/linear/UR",)))))
    assert "the baseline is missing" in page.text
    assert "Transfer against none" not in page.text


def test_warnings_and_facts(document_of: Build, data_of: Build) -> None:
    document = document_of(("old", "new"), seeds=1)
    document["point_in_time"] = {"old": False, "new": True, "tiny": True}
    of = {"method": "upstream", "task": "click", "seed": 0}
    document["unlearnt"] = [
        {**of, "stage": "upstream", "scenario": "all", "split": "valid"},
        {**of, "stage": "upstream", "scenario": "all", "split": "test"},
        {**of, "stage": "downstream", "scenario": "old", "method": "none", "split": "test"},
    ]
    data: ReportData = data_of(document, spans={"train": ("2020-01-01", "2020-02-01")})
    text = Page(report_page(data)).text
    assert "validation or test rows: upstream (click), old none (click). Their AUC" in text
    assert "Not point in time (marked *): old. The upstream" in text
    assert "all scenarios\xa0*" in text  # their rows hold the flagged scenario's
    assert "Scenarios without a downstream model: tiny (900 training rows)" in text
    assert "One seed was run" in text
    assert "123 auxiliary pre-training rows" in text and "train: 2020-01-01 to 2020-02-01" in text
    assert "25.00%" in text


def test_a_log_without_a_time_is_said_to_be_none(document_of: Build, data_of: Build) -> None:
    document = document_of()
    assert "has no time" not in report_page(data_of(document))
    document["untimed"] = "are in <an order>"
    page = report_page(data_of(document))
    assert "The log has no time: its rows are in &lt;an order&gt;." in page


def test_lost_exports_are_named_with_the_version_that_stays(
    document_of: Build, data_of: Build
) -> None:
    document = document_of()
    document["exports"] = [
        {"model": "foundation", "state": "published", "version": 2, "reason": ""},
        {"model": "ranker_<a>", "state": "refused", "version": None, "reason": "it <scores>"},
        {"model": "user_tower", "state": "failed", "version": 1, "reason": "full disk"},
    ]
    text = report_page(data_of(document))
    page = Page(text)
    assert "<p>The export ranker_<wbr>&lt;a&gt; was refused: it &lt;scores&gt;</p>" in text
    assert "The export user_tower failed; version 1 stays: full disk" in page.text
    assert "The export foundation" not in page.text
    assert page.table("version in service") == [
        ["foundation", "published", "2", ""],
        ["ranker_<a>", "refused", "–", "it <scores>"],
        ["user_tower", "failed", "1", "full disk"],
    ]


def test_wall_time_counts_every_model_once(document_of: Build, data_of: Build) -> None:
    """2 s a model: 3 upstreams, and 2 scenarios x 3 methods x 3 seeds downstream."""
    text = report_page(data_of(document_of()))
    for stage, seconds in (("upstream", 6), ("downstream", 36), ("retrieval", 6)):
        assert f"<b>{seconds} s</b><span>{stage} training" in text


@pytest.mark.parametrize(
    ("rows", "positives", "drawn"),
    [(99, 50, False), (100, 19, False), (100, 81, False), (100, 20, True), (100, 80, True)],
)
def test_small_slices_are_listed_and_not_drawn(
    document_of: Build, data_of: Build, rows: int, positives: int, drawn: bool
) -> None:
    document = document_of(("tab",), tasks=("click",))
    for entry in document["results"]:
        if entry["stage"] == "downstream" and entry["slice"] == "cold_item":
            entry |= {"rows": rows, "positives": positives}
            entry["metrics"]["auc"] = 1.0  # would stretch every axis
    text = report_page(data_of(document))
    page = Page(text)
    assert (f"cold_item: {rows} rows" in page.text) == drawn
    # the last table before the training curves, where there is one
    listed = [t for t in page.tables if t[0] == ["scenario", "slice", "rows", "positives"]]
    expected = [["tab", "cold_item", str(rows), str(positives)]]
    assert [t[1:] for t in listed] == ([] if drawn else [expected])
    assert ("1.00</span>" in text) == drawn


def test_a_difference_on_few_positives_is_listed(document_of: Build, data_of: Build) -> None:
    document = document_of(("big", "tiny"), tasks=("click",))
    for entry in document["results"]:
        if entry["scenario"] == "tiny" and entry["slice"] == "all":
            entry |= {"rows": 900, "positives": 12}
    text = report_page(data_of(document))
    section = text.split('id="differences"')[1].split("</section>")[0]
    assert section.count("<figcaption>") == 1 and "<figcaption>big<" in section
    assert ">tiny</th>" in section and "Too few to be drawn" in section


def test_warnings_are_listed_by_kind_and_escaped(document_of: Build, data_of: Build) -> None:
    document = document_of()
    said = {"task": "click", "numbers": {}}
    document["warnings"] = [
        {**said, "kind": "calibration", "scenario": f"<tab {k}>", "message": f"{k} & more"}
        for k in range(6)
    ]
    document["warnings"].append({**said, "kind": "unlearnt", "scenario": "a", "message": "told"})
    text = report_page(data_of(document, kinds={"calibration": "Calibration off"}))
    page = Page(text)
    assert page.text.count("Calibration off") == 1 and "2 more" in page.text
    for k in range(6):
        assert f"<tab {k}>, click: {k} & more" in page.text
    assert "told" not in page.text  # the page tells these from `unlearnt`
    assert text.index("Calibration off") < text.index('id="result"')
    document["warnings"][0]["message"] = "raise `min_count` & `<run>` it"
    text = report_page(data_of(document, kinds={"calibration": "Calibration off"}))
    assert "raise <code>min_count</code> &amp; <code>&lt;run&gt;</code> it" in text
    del document["warnings"]  # an earlier version wrote none
    assert "Calibration off" not in report_page(data_of(document))
