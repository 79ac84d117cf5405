"""Stage `evaluate`: `metrics.json` from the results of the other stages."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from lfm4ads_tf.baselines.registry import BASELINES
from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.data.clock import order_facts
from lfm4ads_tf.data.dropped import tell_unscored
from lfm4ads_tf.features.fitted_encoding import ALL
from lfm4ads_tf.files import write_json
from lfm4ads_tf.metrics import paired_comparison
from lfm4ads_tf.pipeline.diagnosis import diagnose
from lfm4ads_tf.pipeline.export_outcome import read_outcomes
from lfm4ads_tf.pipeline.full import FULL
from lfm4ads_tf.pipeline.intervals import add_intervals, draw_users
from lfm4ads_tf.pipeline.overall import overall
from lfm4ads_tf.pipeline.repeats import Repeats
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.scoring import count_positives
from lfm4ads_tf.pipeline.summary import TREES, summary
from lfm4ads_tf.transfer.retrieval.method import OWN

SCHEMA = 1
BASELINE = "none"


def evaluate(run: Run) -> dict[str, Any]:
    """Gathers all results, compares every method with `none`, and writes `metrics.json`.

    A downstream's tables also hold the upstream's own head on the same rows, as the method
    `upstream`, and the baselines under their names. Comparisons are paired by seed on the AUC of
    each split, frozen.

    Returns:
        What `metrics.json` holds.
    """
    trainings = _stored(run.out, run.config)
    cache = run.cache
    tell_unscored(cache.scenario, {split: cache.rows_of(split) for split in ("valid", "test")})
    results: list[dict[str, Any]] = []
    scenarios = {
        e["scenario"] for _, r in trainings for e in r["entries"] if e["stage"] == "downstream"
    }
    for _, stored in trainings:
        for entry in stored["entries"]:
            results.append(entry)
            if entry["stage"] in ("upstream", "baseline") and entry["scenario"] in scenarios:
                results.append({**entry, "stage": "downstream"})
    # A slice without a row says nothing.
    results = [e for e in results if e["rows"] or e["slice"] == "all"]
    count_positives(cache, run.spec, results)
    draws = draw_users(run)
    add_intervals(results, draws)
    rates: dict[str, list[float]] = defaultdict(list)
    for stage, stored in trainings:
        if stored["examples_per_s"]:
            rates[stage].append(stored["examples_per_s"])
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "spec": run.spec.name,
        "rows": run.cache.manifest["rows"],
        "auxiliary_rows": run.cache.manifest["auxiliary_rows"],
        "point_in_time": run.cache.manifest["point_in_time"],
        **order_facts(run.spec),
        "unlearnt": [poor for _, stored in trainings for poor in stored.get("unlearnt", [])],
        "results": results,
        "comparisons": compare(results),
        "overall": overall(results, run.cache.layout.scenarios),
        "throughput": {
            "train_examples_per_s": _mean(rates["upstream"]),
            **{f"{stage}_examples_per_s": _mean(values) for stage, values in rates.items()},
        },
        "exports": read_outcomes(run.out),
        **_full(trainings),
        "summary": summary(run, results),
        **_seen(run, results),
    }
    document["warnings"] = diagnose(run, document, draws)
    write_json(run.out / "metrics.json", document)
    return document


def compare(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Paired differences: in AUC to `none` and to LightGBM, in recall to own towers.

    Where LightGBM was fitted, every other method of a scenario that is no baseline is compared with
    it too, and the upstream over all rows.
    """
    baselines = {"downstream": (BASELINE, TREES), "retrieval": (OWN,), "upstream": (TREES,)}
    scenarios = {e["scenario"] for e in results if e["stage"] == "downstream"}
    values: dict[tuple[str, ...], dict[str, dict[int, float]]] = defaultdict(dict)
    for entry in results:
        stage = "upstream" if entry["stage"] == "baseline" else entry["stage"]
        if stage not in baselines or entry["refresh"] != "frozen":
            continue
        if stage == "upstream" and (entry["scenario"] != ALL or ALL in scenarios):
            continue  # compared among the downstream's
        key = (stage, entry["scenario"], entry["task"], entry["slice"], entry["split"])
        by_seed = values[key].setdefault(entry["method"], {})
        by_seed[entry["seed"]] = entry["metrics"][_compared(entry)]
    comparisons = []
    for (stage, scenario, task, slice_name, split), methods in values.items():
        for baseline in baselines[stage]:
            for method, by_seed in methods.items():
                if method == baseline or baseline not in methods:
                    continue
                if baseline == TREES and method in BASELINES:
                    continue
                paired = paired_comparison(by_seed, methods[baseline])
                comparisons.append(
                    {
                        "scenario": scenario,
                        "task": task,
                        "slice": slice_name,
                        "method": method,
                        "baseline": baseline,
                        "split": split,
                        "diff_mean": paired.diff_mean,
                        "diff_sd": paired.diff_sd,
                        "p": paired.p,
                        "seeds": paired.seeds,
                    }
                )
    return comparisons


def _full(trainings: list[tuple[str, dict[str, Any]]]) -> dict[str, str]:
    """What `full` stood for where it was trained."""
    for _, stored in trainings:
        if stored["entries"] and stored["entries"][0]["method"] == FULL and "resolved" in stored:
            return {FULL: stored["resolved"]}
    return {}


def _seen(run: Run, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Whether retrieval's candidates hold what users saw, where there are retrieval results."""
    if any(entry["stage"] == "retrieval" for entry in results):
        return {"retrieval": Repeats.of(run).to_json()}
    return {}


def _compared(entry: dict[str, Any]) -> str:
    """The metric that an entry is compared by."""
    if entry["stage"] != "retrieval":
        return "auc"
    return next(name for name in entry["metrics"] if name.startswith("recall@"))


def _stored(out: Path, config: RunConfig) -> list[tuple[str, dict[str, Any]]]:
    """(stage, content) of every `results.json` of the run, in a fixed order."""
    trainings = []
    places = {"upstream": "upstream", "downstream": "downstream", "retrieval": "retrieval"}
    places |= {f"baseline/{name}": "baseline" for name in BASELINES}
    for place, stage in places.items():
        for path in sorted((out / place).rglob("results.json")):
            stored = json.loads(path.read_text("utf-8"))
            if path.parent.name in {f"seed_{s}" for s in config.all_seeds}:
                trainings.append((stage, stored))
    return trainings


def _mean(values: list[float]) -> float | None:
    return round(sum(values) / len(values), 1) if values else None
