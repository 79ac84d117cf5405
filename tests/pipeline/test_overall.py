"""Means over scenarios, against a plain computation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from lfm4ads_tf.pipeline.overall import overall


def entries() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {
            "stage": "downstream",
            "scenario": scenario,
            "task": "click",
            "method": method,
            "slice": "all",
            "refresh": "frozen",
            "seed": seed,
            "split": "test",
            "rows": rows,
            "metrics": {"auc": float(rng.random())},
        }
        for scenario, rows in (("a", 100), ("b", 300), ("segment", 50))
        for method in ("none", "full", "upstream")
        for seed in range(4)
    ]


def test_equals_the_definition() -> None:
    results = entries()
    found = {e["method"]: e for e in overall(results, ["a", "b", "empty"])}

    def of(method: str) -> np.ndarray:
        auc = {
            (e["scenario"], e["seed"]): e["metrics"]["auc"]
            for e in results
            if e["method"] == method
        }
        return np.array([(100 * auc["a", s] + 300 * auc["b", s]) / 400 for s in range(4)])

    for method in ("none", "full", "upstream"):
        assert found[method]["mean"] == pytest.approx(of(method).mean())
        assert found[method]["sd"] == pytest.approx(of(method).std(ddof=1))
        assert found[method]["rows"] == 400
        assert found[method]["scenarios"] == ["a", "b"]
    to = found["full"]["to"]
    assert list(to) == ["none", "upstream"]
    assert to["none"]["diff_mean"] == pytest.approx((of("full") - of("none")).mean())
    assert to["none"]["p"] == pytest.approx(stats.ttest_rel(of("full"), of("none")).pvalue)


def test_a_seed_without_one_of_the_scenarios_does_not_count() -> None:
    results = [
        e
        for e in entries()
        if not (e["method"] == "full" and e["scenario"] == "b" and e["seed"] > 1)
    ]
    found = {e["method"]: e for e in overall(results, ["a", "b"])}
    assert found["full"]["seeds"] == 2
    assert found["full"]["to"]["none"]["seeds"] == 2
    assert found["none"]["seeds"] == 4
