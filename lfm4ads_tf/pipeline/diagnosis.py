"""What a reader must know before believing a run's numbers: one list of warnings, with numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.fitted_encoding import ALL
from lfm4ads_tf.metrics import Interval
from lfm4ads_tf.pipeline.choice import chosen_method, trained_scenarios, validation_auc
from lfm4ads_tf.pipeline.full import FULL
from lfm4ads_tf.pipeline.intervals import Draws, Place
from lfm4ads_tf.pipeline.run import Run

BASELINE, UPSTREAM, TREES = "none", "upstream", "lightgbm"

CALIBRATION_RANGE = (0.9, 1.1)
"""Mean prediction over mean label that needs no warning, with `CALIBRATION_POSITIVES` or more."""
CALIBRATION_POSITIVES = 100
FEW_LABELS = 100
"""Positives, or negatives, below which a result on valid or test rests on few of them."""
FEW_ROWS_SHARE = 0.1
"""Share of the median period's rows below which a period has few."""

KINDS = {
    "point_in_time": "Not point in time",
    "untimed": "No time in the log",
    "exported_none": "Exported without transfer",
    "below_trees": "Below the trees",
    "below_none": "Below no transfer",
    "no_better_than_trees": "No better than the trees",
    "no_better_than_none": "No better than no transfer",
    "unlearnt": "No better than a constant",
    "calibration": "Calibration off",
    "few_labels": "Few positives or negatives",
    "few_rows": "Periods with few rows",
    "no_positive": "Periods without a positive",
    "export_lost": "Export not published",
}
"""Kind of a warning -> its heading, in the order of the list."""

Warnings = list[dict[str, Any]]


def diagnose(run: Run, document: Mapping[str, Any], draws: Mapping[Place, Draws]) -> Warnings:
    """All warnings about a run, in the order of `KINDS`.

    Args:
        run: The run.
        document: What `metrics.json` is to hold.
        draws: Its models' AUCs over draws of users, see `lfm4ads_tf.pipeline.intervals`.

    Returns:
        Of each `kind`, `message`, `numbers`, and `scenario` and `task`, null where it is of none.
    """
    results = document["results"]
    exported = _exported(run)
    transfers = {scenario: [FULL, *_best_transfer(run, scenario)] for scenario in exported}
    warnings = [
        *_known(document),
        *_exported_none(run, exported),
        *compared(draws, exported, transfers),
        *calibrations(results, exported),
        *few_labels(results),
        *few_rows(run.cache),
        *no_positive(run.cache, list(exported)),
        *lost_exports(document["exports"]),
    ]
    order = list(KINDS)
    return sorted(warnings, key=lambda w: order.index(w["kind"]))


def warning(
    kind: str,
    message: str,
    numbers: Mapping[str, Any],
    scenario: str | None = None,
    task: str | None = None,
) -> dict[str, Any]:
    """One warning; the message names neither its scenario nor its task."""
    return {
        "kind": kind,
        "scenario": scenario,
        "task": task,
        "message": message,
        "numbers": dict(numbers),
    }


def compared(
    draws: Mapping[Place, Draws],
    scenarios: Iterable[str],
    transfers: Mapping[str, Sequence[str]],
) -> Warnings:
    """Models that are not above `none`, or not above the trees, on the frozen test rows.

    A model is below where the whole interval of the difference over users is, and no better where
    the difference is not positive and the interval holds zero.

    Args:
        draws: The AUCs.
        scenarios: Scenarios with downstream models.
        transfers: Scenario -> methods that are held against `none` beside the upstream.
    """
    warnings: Warnings = []
    for (scenario, task, split), drawn in draws.items():
        if split != "test":
            continue
        with_model = scenario in scenarios
        methods = [UPSTREAM, *(transfers.get(scenario, []) if with_model else [])]
        methods = list(dict.fromkeys(methods))
        named = [*methods, BASELINE] if with_model else methods
        for kind, baseline, judged in (("none", BASELINE, methods), ("trees", TREES, named)):
            below: dict[str, Interval] = {}
            equal: dict[str, Interval] = {}
            for method in judged:
                difference = drawn.difference(method, baseline)
                if difference is not None and difference.high < 0:
                    below[method] = difference
                elif difference is not None and difference.value <= 0:
                    equal[method] = difference
            words = {"below": below, "no_better_than": equal}
            for word, differences in words.items():
                if differences:
                    message, numbers = _differences(drawn, baseline, word, differences)
                    warnings.append(warning(f"{word}_{kind}", message, numbers, scenario, task))
    return warnings


def calibrations(results: Iterable[Mapping[str, Any]], exported: Mapping[str, str]) -> Warnings:
    """Calibrations outside of the range, of the upstream on all rows and of what is exported.

    Args:
        results: Entries of `metrics.json`.
        exported: Scenario -> method of its exported ranker.
    """
    values: dict[tuple[str, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for entry in results:
        of_upstream = entry["stage"] == "upstream" and entry["scenario"] == ALL
        of_export = (
            entry["stage"] == "downstream" and exported.get(entry["scenario"]) == entry["method"]
        )
        if (of_upstream or of_export) and _whole(entry):
            key = (entry["scenario"], entry["task"], entry["method"], entry["split"])
            if entry["metrics"]["calibration"] is not None:
                values[key].append(entry)
    warnings = []
    low, high = CALIBRATION_RANGE
    for (scenario, task, method, split), entries in values.items():
        positives = entries[0].get("positives") or 0
        mean = float(np.mean([e["metrics"]["calibration"] for e in entries]))
        if positives >= CALIBRATION_POSITIVES and not low <= mean <= high:
            message = (
                f"{method} predicts {mean:.3f} times the mean label of the {split} rows "
                f"({positives:,} positives)"
            )
            numbers = {"method": method, "split": split, "calibration": mean}
            numbers["positives"] = positives
            warnings.append(warning("calibration", message, numbers, scenario, task))
    return warnings


def few_labels(results: Iterable[Mapping[str, Any]]) -> Warnings:
    """Scenarios and tasks with few positives or few negatives in valid or test.

    Scenarios with downstream models come first.
    """
    places: dict[tuple[str, str], dict[str, tuple[int, int]]] = defaultdict(dict)
    for entry in sorted(results, key=lambda e: e["stage"] != "downstream"):
        if entry["stage"] in ("upstream", "downstream") and _whole(entry):
            positives, rows = entry.get("positives"), entry["rows"]
            if positives is not None and rows and min(positives, rows - positives) < FEW_LABELS:
                by_split = places[entry["scenario"], entry["task"]]
                by_split[entry["split"]] = (positives, rows - positives)
    warnings = []
    for (scenario, task), splits in places.items():
        texts = [f"{p:,} positives and {n:,} negatives in {s}" for s, (p, n) in splits.items()]
        numbers = {s: {"positives": p, "negatives": n} for s, (p, n) in splits.items()}
        warnings.append(warning("few_labels", "; ".join(texts), numbers, scenario, task))
    return warnings


def few_rows(cache: EncodedCache) -> Warnings:
    """Periods with few rows beside the median one."""
    names = cache.manifest["periods"]
    counts = np.bincount(cache.period[cache.period >= 0], minlength=len(names))
    if not counts.any():
        return []
    median = float(np.median(counts[counts > 0]))
    warnings = []
    for name, count in zip(names, counts, strict=True):
        if 0 < count < FEW_ROWS_SHARE * median:
            message = f"period {name} has {count:,} rows, the median period {median:,.0f}"
            numbers = {"period": str(name), "rows": int(count), "median": median}
            warnings.append(warning("few_rows", message, numbers))
    return warnings


def no_positive(cache: EncodedCache, scenarios: Sequence[str]) -> Warnings:
    """Training periods whose known labels hold no positive, over all rows and per scenario.

    Args:
        cache: The encoded cache.
        scenarios: Scenarios and segments with downstream models.
    """
    names = cache.manifest["periods"]
    warnings = []
    for scenario in dict.fromkeys([ALL, *scenarios]):
        rows = cache.rows_of("train", None if scenario == ALL else scenario)
        period = np.asarray(cache.period[rows])
        for k, task in enumerate(cache.layout.tasks):
            labels = np.asarray(cache.labels[rows, k])
            known = np.unique(period[np.isfinite(labels)])
            lacking = np.setdiff1d(known, period[labels == 1])
            if len(lacking):
                named = [str(names[p]) for p in lacking]
                shown = ", ".join(named[:5]) + (", ..." if len(named) > 5 else "")
                message = f"{len(named)} of {len(known)} training periods have no positive: {shown}"
                numbers = {"periods": named, "of": len(known)}
                warnings.append(warning("no_positive", message, numbers, scenario, task))
    return warnings


def lost_exports(outcomes: Iterable[Mapping[str, Any]]) -> Warnings:
    """Exports that were refused or failed, from what `exports.json` holds."""
    warnings = []
    for export in outcomes:
        if export["state"] != "published":
            older = f"; version {export['version']} stays" if export["version"] else ""
            message = f"{export['model']} {export['state']}{older}: {export['reason']}"
            warnings.append(warning("export_lost", message, {"version": export["version"]}))
    return warnings


def _known(document: Mapping[str, Any]) -> Warnings:
    """What other keys of the document say as well."""
    warnings = []
    for scenario, honest in document["point_in_time"].items():
        if not honest:
            message = "training rows are later than some of its valid or test rows"
            warnings.append(warning("point_in_time", message, {}, scenario))
    if "untimed" in document:
        warnings.append(warning("untimed", f"its rows {document['untimed']}", {}))
    for entry in document["unlearnt"]:
        numbers = {k: entry[k] for k in ("method", "seed", "split", "rows", "auc", "logloss")}
        numbers["logloss_constant"] = entry["logloss_constant"]
        message = (
            f"{entry['method']}, seed {entry['seed']}, on {entry['rows']:,} {entry['split']} rows: "
            f"AUC {_number(entry['auc'])}, logloss {_number(entry['logloss'])}, that of the "
            f"training rows' mean label {_number(entry['logloss_constant'])}"
        )
        warnings.append(warning("unlearnt", message, numbers, entry["scenario"], entry["task"]))
    return warnings


def _exported(run: Run) -> dict[str, str]:
    """Scenario -> method of its ranker, by the first seed."""
    methods = {}
    for scenario in trained_scenarios(run):
        try:
            methods[scenario] = chosen_method(run, scenario).name
        except UserError:  # `export.method` was not trained there: the export says so
            continue
    return methods


def _best_transfer(run: Run, scenario: str) -> list[str]:
    """The method other than `none` that is best on validation; empty without one."""
    values = {m: v for m, v in validation_auc(run, scenario).items() if m != BASELINE}
    return [max(values, key=lambda m: values[m])] if values else []


def _exported_none(run: Run, exported: Mapping[str, str]) -> Warnings:
    """Scenarios whose ranker has no transfer though there was a choice."""
    warnings = []
    for scenario, method in exported.items():
        transfer = _best_transfer(run, scenario)
        if method != BASELINE or not transfer:
            continue
        values, best = validation_auc(run, scenario), transfer[0]
        by = "validation picks it" if run.config.export.method is None else "export.method says so"
        message = (
            f"the exported ranker is `none`: {by} (mean AUC over tasks {values[BASELINE]:.4f}, "
            f"the best transfer, {best}, {values[best]:.4f})"
        )
        numbers = {"none": values[BASELINE], "best": best, "best_auc": values[best]}
        warnings.append(warning("exported_none", message, numbers, scenario))
    return warnings


def _differences(
    drawn: Draws, baseline: str, word: str, differences: Mapping[str, Interval]
) -> tuple[str, dict[str, Any]]:
    """Message and numbers of the models that are not above a baseline."""
    base = drawn.mean(baseline)
    texts, methods = [], {}
    for method, difference in differences.items():
        auc = drawn.mean(method)
        value, low, high = (
            f"{100 * v:+.2f}" for v in (difference.value, difference.low, difference.high)
        )
        texts.append(f"{method} {auc:.4f} ({value} points, {low} to {high})")
        methods[method] = {
            "auc": auc,
            "difference": difference.value,
            "low": difference.low,
            "high": difference.high,
        }
    words = word.replace("_", " ")
    verb = "is" if len(differences) == 1 else "are"
    named = " and ".join([", ".join(texts[:-1]), texts[-1]] if texts[:-1] else texts)
    message = f"{named} {verb} {words} {baseline} {base:.4f} (test AUC)"
    return message, {"baseline": baseline, "auc": base, "split": "test", "methods": methods}


def _whole(entry: Mapping[str, Any]) -> bool:
    return bool(entry["slice"] == "all" and entry["refresh"] == "frozen")


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
