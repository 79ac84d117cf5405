"""The stage `baseline`: its files, its messages, and what stands in `metrics.json`."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from sklearn.metrics import roc_auc_score

from lfm4ads_tf.baselines import light_gbm
from lfm4ads_tf.baselines.registry import BASELINES
from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.files import write_arrays
from lfm4ads_tf.pipeline import baseline
from lfm4ads_tf.pipeline.baseline import run_baselines
from lfm4ads_tf.pipeline.evaluate import compare
from lfm4ads_tf.pipeline.global_entries import global_entries
from lfm4ads_tf.pipeline.summary import summary
from lfm4ads_tf.pipeline.summary_table import print_summary
from lfm4ads_tf.strict import parse

CHEAP = ["popularity", "constant"]


def _run(ads: Any, out: Path, seeds: int = 2, **part: Any) -> Any:
    config = parse(RunConfig, {"seeds": seeds, "baseline": part}, source="run")
    return SimpleNamespace(
        cache=ads.cache,
        spec=ads.spec,
        config=config,
        quiet=True,
        out=out,
        baseline=lambda name, seed: out / "baseline" / name / f"seed_{seed}",
        upstream=lambda seed: out / "upstream" / f"seed_{seed}",
        downstream=lambda s, m, seed: out / "downstream" / s / m / f"seed_{seed}",
    )


@pytest.fixture(scope="module")
def fitted(ads: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    run = _run(ads, tmp_path_factory.mktemp("fitted"))
    run_baselines(run, asked=True)
    return run


def _stored(run: Any, name: str, seed: int) -> tuple[list[dict[str, Any]], Any]:
    folder = run.baseline(name, seed)
    entries = json.loads((folder / "results.json").read_text())["entries"]
    return entries, np.load(folder / "predictions.npz")


def test_every_scenario_is_scored_by_what_is_stored(fitted: Any) -> None:
    cache = fitted.cache
    for name, kind in BASELINES.items():
        entries, stored = _stored(fitted, name, 0)
        assert {e["scenario"] for e in entries} == {"all", "t0", "t1"}
        assert {(e["stage"], e["method"], e["seed"]) for e in entries} == {("baseline", name, 0)}
        for entry in entries:
            if entry["slice"] != "all":
                continue
            k = cache.layout.tasks.index(entry["task"])
            rows = stored[f"{entry['split']}_rows"]
            own = np.isfinite(cache.labels[rows, k])
            if entry["scenario"] != "all":
                own &= cache.scenario[rows] == cache.layout.scenarios.index(entry["scenario"])
            scores = stored[f"{entry['split']}_{entry['refresh']}"][own, k]
            expected = roc_auc_score(cache.labels[rows[own], k], scores)
            assert entry["metrics"]["auc"] == pytest.approx(expected, abs=1e-9)
        again, twin = _stored(fitted, name, 1)
        same = np.array_equal(stored["test_frozen"], twin["test_frozen"])
        assert same is not kind.seeded
        assert {e["seed"] for e in again} == {1}


def test_what_is_complete_is_left_alone(fitted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in BASELINES.values():
        monkeypatch.setattr(kind, "fit", lambda self: pytest.fail("fitted again"))
    run_baselines(fitted, asked=True)


def test_a_missing_package_is_one_message_or_one_line(
    ads: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(baseline, "find_spec", lambda name: None)
    run = _run(ads, tmp_path, seeds=1)
    with pytest.raises(UserError) as refused:
        run_baselines(run, asked=True)
    text = str(refused.value)
    assert "lightgbm and logistic_regression cannot be fitted" in text and '".[bench]"' in text
    assert "--set baseline.methods=[popularity, constant]" in text
    assert not list(tmp_path.iterdir())
    with caplog.at_level(logging.WARNING, "lfm4ads_tf"):
        run_baselines(run, asked=False)
    assert len([r for r in caplog.records if "[bench]" in r.getMessage()]) == 1
    assert sorted(p.name for p in (tmp_path / "baseline").iterdir()) == sorted(CHEAP)


def _raises(error: Exception) -> Any:
    def raises(*_: Any) -> None:
        raise error

    return raises


@pytest.mark.parametrize(
    "error",
    [
        OSError("libgomp.so.1: cannot open shared object file\nmore"),
        ImportError("libgomp.so.1: cannot open shared object file"),
        ValueError("libgomp.so.1: cannot open shared object file"),
    ],
)
def test_a_package_that_cannot_be_imported_is_one_message_or_one_line(
    ads: Any,
    tmp_path: Path,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(light_gbm, "_library", _raises(error))
    run = _run(ads, tmp_path, seeds=1, methods=["lightgbm", "constant"])
    with pytest.raises(UserError) as refused:
        run_baselines(run, asked=True)
    told = f"{type(error).__name__}: libgomp.so.1: cannot open shared object file"
    assert f"lightgbm cannot be imported: {told}" in str(refused.value)
    assert "--set baseline.methods=[constant]" in str(refused.value)
    assert not list(tmp_path.iterdir())
    with caplog.at_level(logging.WARNING, "lfm4ads_tf"):
        run_baselines(run, asked=False)
    assert caplog.messages == [f"baselines without lightgbm: lightgbm cannot be imported: {told}"]
    assert [p.name for p in (tmp_path / "baseline").iterdir()] == ["constant"]


def test_one_that_fails_does_not_end_a_run(
    ads: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(BASELINES["popularity"], "fit", _raises(ZeroDivisionError("no item")))
    run = _run(ads, tmp_path, methods=CHEAP)
    with pytest.raises(ZeroDivisionError):
        run_baselines(run, asked=True)
    with caplog.at_level(logging.WARNING, "lfm4ads_tf"):
        run_baselines(run, asked=False)
    text = "baselines without popularity, which failed: ZeroDivisionError: no item"
    assert caplog.messages == [text]
    assert [p.name for p in (tmp_path / "baseline").iterdir()] == ["constant"]


def test_disabled_ones_are_fitted_when_asked_for(ads: Any, tmp_path: Path) -> None:
    run = _run(ads, tmp_path, seeds=1, enabled=False, methods=["constant"])
    run_baselines(run, asked=False)
    assert not list(tmp_path.iterdir())
    run_baselines(run, asked=True)
    assert [p.name for p in (tmp_path / "baseline").iterdir()] == ["constant"]


@pytest.fixture(scope="module")
def results(fitted: Any) -> list[dict[str, Any]]:
    """The baselines' results, an upstream's, and a downstream's of both scenarios, two seeds."""
    cache, rng = fitted.cache, np.random.default_rng(0)
    found = []
    for seed in (0, 1):
        for name in BASELINES:
            found += _stored(fitted, name, seed)[0]
        entries = _stored(fitted, "lightgbm", seed)[0]
        drawn = rng.random((cache.rows, 2))
        identity = {"stage": "upstream", "method": "upstream", "seed": seed, "wall_s": 1.0}
        upstream, stored = global_entries(fitted, lambda r, _, d=drawn: d[r], **identity)
        write_arrays(fitted.upstream(seed) / "predictions.npz", stored)
        found += upstream
        for scenario in ("t0", "t1"):
            rows = cache.rows_of("test", scenario)
            for method in ("none", "feature/linear/UR"):
                scores = rng.random((len(rows), 2))
                folder = fitted.downstream(scenario, method, seed)
                arrays = {"test_rows": rows, "test_frozen": scores}
                write_arrays(folder / "predictions.npz", arrays)
                for entry in entries:
                    if entry["scenario"] == scenario:
                        k = cache.layout.tasks.index(entry["task"])
                        labels = cache.labels[rows, k]
                        known = np.isfinite(labels)
                        value = roc_auc_score(labels[known], scores[known, k])
                        metrics = {**entry["metrics"], "auc": value}
                        own = {"stage": "downstream", "method": method, "metrics": metrics}
                        found.append({**entry, **own})
    copied = [e for e in found if e["stage"] in ("upstream", "baseline") and e["scenario"] != "all"]
    return found + [{**e, "stage": "downstream"} for e in copied]


def test_the_summary_is_the_mean_over_scenarios(fitted: Any, results: list[dict[str, Any]]) -> None:
    found = summary(fitted, results)
    order = ["upstream", "none", "feature/linear/UR", *BASELINES]
    assert [e["method"] for e in found] == order * 2
    assert {e["task"] for e in found} == {"click", "love"}

    def mean(task: str, method: str, refresh: str) -> float:
        own = [
            e
            for e in results
            if (e["stage"], e["task"], e["method"], e["refresh"], e["split"], e["slice"])
            == ("downstream", task, method, refresh, "test", "all")
        ]
        assert len(own) == 4  # two scenarios, two seeds
        return float(
            np.average([e["metrics"]["auc"] for e in own], weights=[e["rows"] for e in own])
        )

    for entry in found:
        task, method = entry["task"], entry["method"]
        assert entry["scenarios"] == ["t0", "t1"] and entry["seeds"] == 2
        assert entry["auc"] == pytest.approx(mean(task, method, "frozen"))
        assert entry["auc_daily"] == pytest.approx(mean(task, method, "daily"))
        if method == "lightgbm":
            assert entry["to_lightgbm"] is None
            continue
        to = entry["to_lightgbm"]
        expected = mean(task, method, "frozen") - mean(task, "lightgbm", "frozen")
        assert to["difference"] == pytest.approx(expected, abs=1e-12)
        assert to["low"] < to["high"]


def test_without_downstream_models_the_summary_is_of_all_rows(
    fitted: Any, results: list[dict[str, Any]]
) -> None:
    known = [e for e in results if e["stage"] in ("upstream", "baseline")]
    found = summary(fitted, known)
    assert [e["method"] for e in found] == ["upstream", *BASELINES] * 2
    assert all(e["scenarios"] == ["all"] for e in found)
    assert (
        summary(fitted, [e for e in known if e["method"] == "upstream"])[0]["to_lightgbm"] is None
    )
    assert summary(fitted, []) == []


def test_full_stands_for_the_transfers(fitted: Any, results: list[dict[str, Any]]) -> None:
    full = [{**e, "method": "full"} for e in results if e["method"] == "feature/linear/UR"]
    shown = [e["method"] for e in summary(fitted, [*results, *full])[:3]]
    assert shown == ["upstream", "none", "full"]


def test_the_table_fits_into_100_columns(fitted: Any, results: list[dict[str, Any]]) -> None:
    found = summary(fitted, results)
    for entry in found[2::7]:
        entry["method"] = (
            "feature/mlp/UR+IR+CR_user@cross_2+CR_item@cross_2 & module/warm_start/output"
        )
    console = Console(file=io.StringIO(), width=100)
    print_summary(found, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= 100 and "…" not in text
    to = found[0]["to_lightgbm"]
    shown = [f"{100 * to[k]:+.2f}" for k in ("difference", "low", "high")]
    assert f"{shown[0]} [{shown[1]}, {shown[2]}]" in text
    assert "mean over 2 scenarios weighted by rows" in text and "mean of 2 seeds" in text
    assert text.count(f"{found[0]['auc']:.4f}") >= 1


def test_comparisons_with_the_trees(results: list[dict[str, Any]]) -> None:
    found = [c for c in compare(results) if c["baseline"] == "lightgbm"]
    assert {(c["scenario"], c["method"]) for c in found} == {
        ("all", "upstream"),
        *((s, m) for s in ("t0", "t1") for m in ("upstream", "none", "feature/linear/UR")),
    }
    for comparison in found:

        def auc(method: str, of: Any = comparison) -> list[float]:
            stage = "downstream" if of["scenario"] != "all" else None
            return [
                e["metrics"]["auc"]
                for e in sorted(results, key=lambda e: e["seed"])
                if e["method"] == method and e["refresh"] == "frozen"
                and (e["stage"] == stage or stage is None)
                and all(e[k] == of[k] for k in ("scenario", "task", "slice", "split"))
            ]  # fmt: skip

        ours, theirs = auc(comparison["method"]), auc("lightgbm")
        assert len(ours) == len(theirs) == 2
        if None not in (*ours, *theirs):
            difference = np.mean(np.subtract(ours, theirs))
            assert comparison["diff_mean"] == pytest.approx(difference, abs=1e-12)
