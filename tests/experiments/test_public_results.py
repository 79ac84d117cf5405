"""Tables, weighted means and comparisons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm4ads_tf.experiments.curves import draw_curves
from lfm4ads_tf.experiments.public_method import METHODS
from lfm4ads_tf.experiments.public_results import MEAN, PublicResults

ROWS = {"1": 300, "6": 100}


def entry(method: str, tab: str, seed: int, auc: float | None) -> dict[str, Any]:
    return {
        "stage": "downstream",
        "scenario": tab,
        "task": "click",
        "method": method,
        "slice": "all",
        "refresh": "frozen",
        "seed": seed,
        "split": "test",
        "rows": ROWS[tab],
        "metrics": {"auc": auc},
        "wall_s": 1.0,
    }


@pytest.fixture
def entries() -> list[dict[str, Any]]:
    draw = np.random.default_rng(0)
    return [
        entry(m.name, tab, seed, float(draw.uniform(0.5, 0.7)))
        for m in METHODS
        for tab in ROWS
        for seed in (0, 1, 2)
    ]


def test_means_and_differences(entries: list[dict[str, Any]]) -> None:
    results = PublicResults(entries, ROWS)

    def auc(method: str, tab: str) -> np.ndarray:
        found = [e for e in entries if (e["method"], e["scenario"]) == (method, tab)]
        return np.array([e["metrics"]["auc"] for e in found])

    def mean(method: str) -> np.ndarray:
        return 0.75 * auc(method, "1") + 0.25 * auc(method, "6")

    found = results.spread("model/own", MEAN)
    assert found == pytest.approx((mean("model/own").mean(), mean("model/own").std(ddof=1)))
    comparisons = {(c["method"], c["baseline"], c["scenario"]): c for c in results.comparisons()}
    assert len(comparisons) == 3 * (28 + 7)
    difference = mean("model/IR*UR") - mean("model/own")
    against = comparisons["model/IR*UR", "model/own", MEAN]
    assert against["diff_mean"] == pytest.approx(difference.mean())
    assert against["diff_sd"] == pytest.approx(difference.std(ddof=1))
    assert comparisons["feature/linear/UR", "none", "6"]["label"] == "SUM"


def test_tables(entries: list[dict[str, Any]]) -> None:
    text = PublicResults(entries, ROWS).markdown(
        schedule="ours", trials=3, rows={"train": 1000, "valid": 10, "test": 400}
    )
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 29 + 1 + 2 * 3
    assert all(f"| {method.label} |" in text for method in METHODS)
    cell = next(line for line in rows if line.startswith("| gate CR_2 ")).split(" | ")[1]
    values = [e["metrics"]["auc"] for e in entries if e["method"].endswith("gate/CR_user@cross_2")]
    assert cell.startswith(f"{np.mean(values[:3]):.4f} ± {np.std(values[:3], ddof=1):.4f} (")


def test_undefined_stays_undefined(entries: list[dict[str, Any]], tmp_path: Path) -> None:
    for e in entries:
        if e["scenario"] == "6" and e["method"] == "none":
            e["metrics"]["auc"] = None
    results = PublicResults(entries, ROWS)
    assert results.spread("none", MEAN) is None and results.spread("none", "1") is not None
    found = {c["scenario"] for c in results.comparisons() if c["baseline"] == "none"}
    assert found == {"1"}
    results.write(tmp_path, schedule="ours", trials=3, rows={"test": 400})
    draw_curves(results, tmp_path)
    assert "–" in (tmp_path / "results.md").read_text("utf-8")


def test_figure_has_a_panel_per_usage_and_tab(
    entries: list[dict[str, Any]], tmp_path: Path
) -> None:
    results = PublicResults(entries, ROWS)
    draw_curves(results, tmp_path)
    svg = (tmp_path / "curves.svg").read_text("utf-8")
    for usage in ("feature", "module", "model"):
        for tab in ROWS:
            assert f"{usage} level, tab {tab}" in svg
    for label in ("SUM", "Vanilla", "Retriever", "IR &amp; UR", "concat", "gate", "warm start"):
        assert label in svg
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
