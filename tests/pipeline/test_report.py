"""The stage on a small run folder: the page tells what the folder holds."""

from __future__ import annotations

import html
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
import yaml
from rich.console import Console

from lfm4ads_tf.config import resolve
from lfm4ads_tf.data.cache import CacheContent, write_cache
from lfm4ads_tf.diagnostics.token_diagnosis import token_entries
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.layout import DenseField, FeatureLayout, IdField, TableField
from lfm4ads_tf.files import write_json
from lfm4ads_tf.interactions.observed_tokens import ObservedTokens
from lfm4ads_tf.metrics import auc, auc_interval, calibration_curve
from lfm4ads_tf.pipeline.evaluate import evaluate
from lfm4ads_tf.pipeline.export_outcome import ExportOutcome, write_outcomes
from lfm4ads_tf.pipeline.intervals import draw_users
from lfm4ads_tf.pipeline.report import report
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.tables import print_tables

SPEC = {
    "name": "small",
    "log": {"files": ["log.csv"]},
    "keys": {"user": "user_id", "item": "item_id", "time": "time", "scenario": "tab"},
    "tasks": {"click": "is_click"},
    "split": {"by": "time", "train_until": 6, "valid_until": 8},
    "features": {"user_id": {"kind": "hashed", "owner": "user", "buckets": 20}},
    "run": {"seeds": 2, "downstream": {"methods": ["none", "feature/linear/UR"]}},
}
ROWS = 1200
SCENARIOS = ("0", "<feed>")


def _cache(folder: Path) -> dict[str, np.ndarray]:
    """An encoded cache of random rows; returns its columns."""
    random = np.random.default_rng(3)
    columns = {
        "ids": random.integers(0, 20, (ROWS, 1)).astype(np.int32),
        "dense": random.normal(size=(ROWS, 1)).astype(np.float32),
        "labels": random.integers(0, 2, (ROWS, 1)).astype(np.float32),
        "scenario": random.integers(0, 2, ROWS).astype(np.int32),
        "branch": np.zeros(ROWS, np.int8),
        "segments": np.zeros((ROWS, 0), bool),
        "user": random.integers(0, 20, ROWS).astype(np.int32),
        "item": random.integers(0, 30, ROWS).astype(np.int32),
        "time": 1.6e9 + 60.0 * np.arange(ROWS),
        "split": np.repeat([0, 1, 2], ROWS // 3).astype(np.int8),
        "period": np.repeat([0, 1, 2], ROWS // 3).astype(np.int32),
        "ahead_row": np.zeros(0, np.int64),
        "ahead_period": np.zeros(0, np.int32),
        "ahead_daily": np.zeros(0, bool),
        "ahead_dense": np.zeros((0, 0), np.float32),
    }
    layout = FeatureLayout(
        fields=(IdField("user_id", "user", "user_id"),),
        dense=(DenseField("age", "user"),),
        tables=(TableField("user_id", 20),),
        scenarios=SCENARIOS,
        tasks=("click",),
    )
    manifest = {
        "fingerprint": "x",
        "spec": "small",
        "rows": {"train": 400, "valid": 400, "test": 400},
        "auxiliary_rows": 0,
        "periods": ["a", "b", "c"],
        "point_in_time": {"0": True, "<feed>": False},
    }
    folder.mkdir(parents=True)
    keys = {side: pa.array([str(k) for k in range(30)]) for side in ("user", "item")}
    write_cache(
        folder, CacheContent(layout, columns, {}, [], None, {}, [], {}, None, keys, manifest)
    )
    return columns


def _model(
    run: Run, folder: Path, columns: dict[str, np.ndarray], stage: str, scenario: str, **who: Any
) -> None:
    """The files of one trained model: results, predictions and loss curve."""
    random = np.random.default_rng([who["seed"], len(who["method"])])
    entries, stored = [], {}
    for split, code in (("valid", 1), ("test", 2)):
        chosen = columns["split"] == code
        if scenario != "all":
            chosen &= columns["scenario"] == SCENARIOS.index(scenario)
        rows = np.flatnonzero(chosen)
        labels = columns["labels"][rows, 0]
        scores = np.clip(0.4 * labels + 0.6 * random.random(len(rows)), 0, 1).astype(np.float32)
        stored |= {f"{split}_rows": rows, f"{split}_frozen": scores[:, None]}
        metrics = {"auc": auc(labels, scores), "gauc": None, "logloss": 0.5, "calibration": None}
        identity = {"stage": stage, "scenario": scenario, "task": "click", "slice": "all"}
        identity |= {"refresh": "frozen", "split": split, "rows": len(rows), "wall_s": 3.0}
        entries.append({**identity, **who, "metrics": metrics})
    folder.mkdir(parents=True)
    np.savez(folder / "predictions.npz", **stored)
    history = [{"phase": "epoch_1", "value": 0.6, "step": 50}]
    results = {"history": history, "steps": 150, "examples_per_s": 10.0, "entries": entries}
    if stage == "upstream":
        table = {"layer": "embeddings", "table": "user_id", "fields": ["user_id"], "rows": 18}
        found = [2.0 + who["seed"], None]
        results["abundance"] = [{**table, "width": 4, "sets": found, "joined": 3.25}]
        tokens = np.random.default_rng(who["seed"]).normal(size=(2, 30, 4))
        held = {"mixer/tokens": ObservedTokens(tokens, ("user_id", "item_id"))}
        results["tokens"] = token_entries(held, {}, seed=0)
    write_json(folder / "results.json", results)
    with tf.summary.create_file_writer(str(run.tensorboard(folder))).as_default():
        for step in (50, 100, 150):
            tf.summary.scalar("train/loss", 70.0 / step, step=step)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with an upstream and two methods in one of two scenarios, evaluated."""
    base = tmp_path_factory.mktemp("report")
    (base / "small.yaml").write_text(yaml.safe_dump(SPEC), "utf-8")
    run = Run(base / "out", resolve(base / "small.yaml"), quiet=True)
    columns = _cache(run.out / "data")
    for seed in (0, 1):
        folder = run.upstream(seed)
        _model(run, folder, columns, "upstream", "all", method="upstream", seed=seed)
        tables = {"user_id": {"dim": 4, "offset": 0, "rows": 20}}
        write_json(folder / "manifest.json", {"tables": tables})
        for method in ("none", "feature/linear/UR"):
            folder = run.downstream("<feed>", method, seed)
            _model(run, folder, columns, "downstream", "<feed>", method=method, seed=seed)
    evaluate(run)
    return run


@pytest.fixture(scope="module")
def page(run: Run) -> str:
    """The text of its report."""
    path = report(run)
    assert path == run.out / "report.html"
    return path.read_text("utf-8")


def test_results_come_from_metrics_json(run: Run, page: str) -> None:
    results = json.loads((run.out / "metrics.json").read_text("utf-8"))["results"]
    for stage, method in (("upstream", "upstream"), ("downstream", "feature/linear/UR")):
        values = [
            e["metrics"]["auc"]
            for e in results
            if (e["stage"], e["method"], e["split"]) == (stage, method, "test")
        ]
        assert len(values) == 2
        assert f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}" in page


def test_data_section_counts_the_cache(run: Run, page: str) -> None:
    cache = run.cache
    for k, name in enumerate(("tab 0", "&lt;feed&gt;")):
        rows = [cache.rows_of(split, SCENARIOS[k]) for split in ("train", "valid", "test")]
        cells = [f"{len(r)}" for r in rows]
        cells += [f"{100 * cache.labels[rows[s], 0].mean():.2f}%" for s in (0, 2)]
        row = f'<th scope="row" class="text">{name}</th>'
        assert row + "".join(f"<td>{cell}</td>" for cell in cells) in page
    assert "train: 2020-09-13 to 2020-09-13 (UTC)" in page
    assert "user features: 1 embedded feature, 1 dense column" in page


def test_tokens_come_from_the_upstreams_results(run: Run, page: str) -> None:
    stored = [json.loads((run.upstream(s) / "results.json").read_text("utf-8")) for s in (0, 1)]
    eranks = [results["tokens"][0]["places"][0]["erank"] for results in stored]
    section = page.split('id="tokens"')[1].split("</section>")[0]
    assert f"<td>{np.mean(eranks):.2f} ± {np.std(eranks, ddof=1):.2f}</td>" in section


def test_abundance_comes_from_the_upstreams_results(run: Run, page: str) -> None:
    section = page.split('id="abundance"')[1].split("</section>")[0]
    cells = ["user_<wbr>id", "18", "4", "2.50 ± 0.71 of 4", "–", "3.25 ± 0.00 of 8"]
    row = "".join(f"<td>{cell}</td>" for cell in cells[1:])
    assert f'<td class="text">{cells[0]}</td>{row}' in section
    assert '<a href="#abundance">' in page


def test_names_and_warnings(page: str) -> None:
    assert "<feed>" not in page
    assert "Not point in time (marked *): <strong>&lt;feed&gt;</strong>" in page
    assert "Scenarios without a downstream model: tab 0" in page


def test_tables_flag_what_is_not_point_in_time(run: Run) -> None:
    document = json.loads((run.out / "metrics.json").read_text("utf-8"))

    def printed(flags: dict[str, bool]) -> str:
        console = Console(record=True, width=200, file=io.StringIO())
        print_tables({**document, "point_in_time": flags}, console)
        return console.export_text()

    text = printed({"0": True, "<feed>": False})
    assert re.search(r"all \* +│ click", text)  # all scenarios' rows hold the flagged one's
    assert "* not point in time: <feed>. Training rows are later than some of their" in text
    assert "Point in time: <feed> -> 0." in text
    text = printed({"0": True, "<feed>": True})
    assert "point in time" not in text and re.search(r"all +│ click", text)


def test_curves_are_drawn_from_logs_and_predictions(run: Run, page: str) -> None:
    assert "Upstream: training loss" in page and "Upstream: AUC on rows not learnt yet" in page
    figure = re.search(r"<figcaption>all scenarios: upstream</figcaption>(<svg.*?</svg>)", page)
    assert figure is not None
    # Matplotlib writes the points of a line as `M x y L x y ...` in the order of the data.
    paths = re.findall(r'<path d="(M[^"]*)" clip-path[^>]*var\(--c0\)', figure[1])
    drawn = np.array([re.findall(r"[\d.]+", p) for p in re.split("[ML]", paths[0]) if p.strip()])
    curves = []
    for seed in (0, 1):
        stored = np.load(run.upstream(seed) / "predictions.npz")
        labels = run.cache.labels[stored["test_rows"], 0]
        curves.append(calibration_curve(labels, stored["test_frozen"][:, 0]))
    for axis, sign in (("prediction", 1), ("label", -1)):
        expected = np.mean([c[axis] for c in curves], axis=0)
        pixels = drawn[:, 0 if sign == 1 else 1].astype(float)
        assert len(pixels) == len(expected) == 10
        assert np.corrcoef(pixels, sign * expected)[0, 1] > 0.999999


def test_files_configuration_and_command(run: Run, page: str) -> None:
    size = (run.out / "metrics.json").stat().st_size
    assert '<a href="./metrics.json"><code>metrics.json</code></a></th><td class="text">' in page
    assert f"{size / 1e3:.1f} kB" in page
    assert str(run.out) not in page
    assert "name: small" in html.unescape(page)
    assert "python train.py run" in page and "--spec spec.yaml" in page


def test_nothing_external(page: str) -> None:
    assert "://" not in page and "<script" not in page


def test_an_unfinished_run_has_a_page(run: Run, tmp_path: Path) -> None:
    out = Run(tmp_path / "out", run.resolved, quiet=True)
    with pytest.raises(UserError, match="metrics.json"):
        report(out)
    _cache(out.out / "data")
    evaluate(out)
    assert "This run holds no test results yet." in report(out).read_text("utf-8")


def test_every_main_result_has_its_interval_and_its_positives(run: Run) -> None:
    document = json.loads((run.out / "metrics.json").read_text("utf-8"))
    cache = run.cache
    for entry in document["results"]:
        name = None if entry["scenario"] == "all" else entry["scenario"]
        rows = cache.rows_of(entry["split"], name)
        folder = run.upstream(entry["seed"])
        if entry["method"] != "upstream":
            folder = run.downstream(entry["scenario"], entry["method"], entry["seed"])
        stored = np.load(folder / "predictions.npz")
        scores = stored[f"{entry['split']}_frozen"][
            np.searchsorted(stored[f"{entry['split']}_rows"], rows), 0
        ]
        interval = auc_interval(cache.labels[rows, 0], scores, cache.user[rows])
        assert interval is not None
        low, high = entry["metrics"]["auc_low"], entry["metrics"]["auc_high"]
        assert (low, high) == (pytest.approx(interval.low), pytest.approx(interval.high))
        assert entry["positives"] == cache.labels[rows, 0].sum()  # the models' files lack it


def test_stored_baselines_are_among_the_draws(run: Run, tmp_path: Path) -> None:
    """The trees score all rows, as the upstream does, and are judged on a scenario's own."""
    out = tmp_path / "out"
    shutil.copytree(run.out, out)
    judged = Run(out, run.resolved, quiet=True)
    columns = {"split": run.cache.split, "scenario": run.cache.scenario, "labels": run.cache.labels}
    for seed in (0, 1):
        folder = out / "baseline" / "lightgbm" / f"seed_{seed}"
        _model(judged, folder, columns, "baseline", "all", method="lightgbm", seed=seed)
    draws = draw_users(judged)
    known = {name for name, _ in draws["<feed>", "click", "test"].names}
    assert known == {"upstream", "none", "feature/linear/UR", "lightgbm"}
    drawn = draws["all", "click", "test"]
    assert {name for name, _ in drawn.names} == {"upstream", "lightgbm"}
    found = drawn.difference("upstream", "lightgbm")
    assert found is not None and drawn.difference("none", "lightgbm") is None
    assert found.value == pytest.approx(drawn.mean("upstream") - drawn.mean("lightgbm"))


def test_a_lost_export_joins_the_warnings_until_it_is_published(tmp_path: Path) -> None:
    write_json(tmp_path / "metrics.json", {"warnings": [{"kind": "calibration"}], "exports": []})

    def kinds() -> list[str]:
        held = json.loads((tmp_path / "metrics.json").read_text("utf-8"))["warnings"]
        return [w["kind"] for w in held]

    write_outcomes(tmp_path, [ExportOutcome("foundation", "refused", None, "differs")])
    assert kinds() == ["calibration", "export_lost"]
    write_outcomes(tmp_path, [ExportOutcome("foundation", "published", 1)])
    assert kinds() == ["calibration"]
