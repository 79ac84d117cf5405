"""Documents as `metrics.json` holds them, made of numbers that are easy to follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from lfm4ads_tf.analysis.report_data import ReportData
from lfm4ads_tf.pipeline.evaluate import compare

TASKS = ("click", "like")
METHODS = ("none", "feature/linear/UR", "feature/mlp/UR+IR+CR_user@cross_2+CR_item@cross_2")


def _entry(
    stage: str, scenario: str, task: str, method: str, seed: int, **more: Any
) -> dict[str, Any]:
    identity = {
        "slice": "all",
        "refresh": "frozen",
        "split": "test",
        "rows": 1000,
        "positives": 250,
    }
    return {
        "stage": stage,
        "scenario": scenario,
        "task": task,
        "method": method,
        "seed": seed,
        **identity,
        "wall_s": 2.0,
        **more,
    }


def make_document(
    scenarios: Sequence[str] = ("tab 0", "tab 1"),
    methods: Sequence[str] = METHODS,
    seeds: int = 3,
    tasks: Sequence[str] = TASKS,
) -> dict[str, Any]:
    """All stages on both splits, with seeded random metrics."""
    random = np.random.default_rng(0)
    results: list[dict[str, Any]] = []

    def add(stage: str, scenario: str, method: str, seed: int) -> None:
        for task in tasks:
            for split in ("valid", "test"):
                for refresh in ("frozen", "daily"):
                    for name in ("all", "cold_item", "light_user"):
                        metrics = {
                            "auc": float(random.uniform(0.6, 0.8)),
                            "gauc": float(random.uniform(0.6, 0.8)),
                            "logloss": float(random.uniform(0.4, 0.6)),
                            "calibration": float(random.uniform(0.9, 1.1)),
                        }
                        if name == "all" and refresh == "frozen":
                            auc = metrics["auc"]
                            metrics |= {"auc_low": auc - 0.01, "auc_high": auc + 0.02}
                        identity = {"slice": name, "refresh": refresh, "split": split}
                        entry = _entry(stage, scenario, task, method, seed, **identity)
                        results.append({**entry, "metrics": metrics})

    for seed in range(seeds):
        add("upstream", "all", "upstream", seed)
        for scenario in scenarios:
            add("upstream", scenario, "upstream", seed)
            for method in ("upstream", *methods):
                add("downstream", scenario, method, seed)
        for split in ("valid", "test"):
            entry = _entry("retrieval", "all", tasks[0], "model/own", seed, split=split)
            results.append({**entry, "metrics": {"recall@100": float(random.uniform(0.1, 0.3))}})
    return {
        "schema": 1,
        "spec": "example",
        "rows": {"train": 50_000, "valid": 6_000, "test": 7_000},
        "auxiliary_rows": 123,
        "point_in_time": dict.fromkeys(scenarios, True),
        "results": results,
        "comparisons": compare(results),
        "throughput": {"train_examples_per_s": 12_345.6},
    }


def make_data(document: dict[str, Any], **more: Any) -> ReportData:
    """A report on a document alone."""
    scenarios = list(document["point_in_time"])
    seeds = sorted({e["seed"] for e in document["results"]})
    rates = {task: (0.25, None) for task in TASKS}
    rows = [{"name": s, "train": 900, "valid": 90, "test": 91, "rates": rates} for s in scenarios]
    given = {"config": "spec: {}\n", "command": "python train.py run", **more}
    return ReportData(
        document=document,
        made="2030-01-02 03:04 UTC",
        versions={"TensorFlow": "2.21.0"},
        seeds=seeds,
        methods=METHODS,
        scenarios=rows,
        **given,
    )


@pytest.fixture
def document_of() -> Callable[..., dict[str, Any]]:
    """Builds a document, see `make_document`."""
    return make_document


@pytest.fixture
def data_of() -> Callable[..., ReportData]:
    """Builds a report on a document, see `make_data`."""
    return make_data
