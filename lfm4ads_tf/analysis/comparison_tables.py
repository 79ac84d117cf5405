"""The tables of a comparison of upstream models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

from lfm4ads_tf.analysis.abundance_table import abundance_table
from lfm4ads_tf.analysis.markup import DASH, PARTS, breakable, count, number, titled
from lfm4ads_tf.analysis.results import MIN_LABELS, MIN_ROWS
from lfm4ads_tf.analysis.verdict import verdict

_METRICS = {
    "auc": ("AUC", 1),
    "gauc": ("GAUC", 1),
    "logloss": ("logloss", -1),
    "calibration": ("calibration", 0),
}
_TRUTH = {"probability_error": ("error", -1)}
"""Key of a metric -> its head, and whether higher or lower is better (0: neither)."""
_OF_THE_TRUTH = {
    "auc_best_possible": "best possible AUC",
    "logloss_truth": "logloss of the truth",
}


def overall_table(document: Mapping[str, Any]) -> Markup:
    """Every model and task over all test rows."""
    metrics = {**_METRICS, **(_TRUTH if document["truth"] else {})}
    rows: list[str | list[Any]] = []
    for task in document["tasks"]:
        entries = _means(document, task, "all", "all")
        if not entries:
            continue
        most = max(entries, key=lambda e: e["rows"])
        head = f"{task} · {count(most['rows'])} rows, {number(most['positives'])} positives"
        rows.append(head + _of_the_truth(entries))
        best = {name: _best(entries, name, sign) for name, (_, sign) in metrics.items()}
        for entry in entries:
            cells: list[Any] = [_name(entry)]
            for name in metrics:
                value = entry["metrics"].get(name)
                marked = (
                    best[name] is not None and value is not None and value["mean"] == best[name]
                )
                cells.append(PARTS.marked(_spread(value), marked and entry["labels"]))
            rows.append(cells)
    return PARTS.table(["model", *(head for head, _ in metrics.values())], rows)


def difference_table(document: Mapping[str, Any], baseline: str, scenario: str = "all") -> Markup:
    """Differences to a baseline over a scenario's rows, with their tests."""
    heads = ["model", "AUC points", "p", "p, Holm", "95 % interval over users"]
    heads += ["can detect, own pairs", "can detect, all pairs"]
    rows: list[str | list[Any]] = []
    for task in document["tasks"]:
        found = [
            e
            for e in document["comparisons"]
            if (e["baseline"], e["task"], e["scenario"]) == (baseline, task, scenario)
        ]
        if not found:
            continue
        rows.append(f"{task}, to {baseline}")
        for e in found:
            judged = None
            if e["diff_mean"] is not None:
                judged = verdict({"p": e["p_holm"], "diff_mean": e["diff_mean"]})
            span = DASH
            if e["low"] is not None:
                span = f"{_signed(e['low'])} to {_signed(e['high'])}"
            detected = [DASH if e[k] is None else f"{100 * e[k]:.2f}" for k in _DETECTABLE]
            told = points(e) if e["comparable"] else "other labels"
            name = breakable(e["model"])
            if e["rows_left_out"]:
                name += f" ({count(e['rows_left_out'])} rows left out)"
            cells = [name, PARTS.judged(told, judged)]
            rows.append([*cells, _p(e["p"]), _p(e["p_holm"]), span, *detected])
    return PARTS.table(heads, rows)


_DETECTABLE = ("detectable", "detectable_pooled")


def place_tables(document: Mapping[str, Any], kind: str) -> Markup:
    """Mean test AUC by scenario, or by slice of all rows: a table per task, a column per model.

    Args:
        document: What `comparison.json` holds.
        kind: `scenario` or `slice`.
    """
    parts: list[Markup] = []
    for task in document["tasks"]:
        every = [e for e in document["means"] if e["task"] == task]
        other = "slice" if kind == "scenario" else "scenario"
        sized = {e[kind]: e["rows"] for e in every if e[other] == "all" and e[kind] != "all"}
        places = list(sized)
        if kind == "scenario":
            places.sort(key=lambda place: -sized[place])
        rows = []
        for place in places:
            chosen = (place, "all") if kind == "scenario" else ("all", place)
            entries = _means(document, task, *chosen)
            few = all(_is_small(e) for e in entries)
            best = None if few else _best(entries, "auc", 1)
            of_model = {e["model"]: e for e in entries}
            most = max(entries, key=lambda e: e["rows"])
            cells = [titled(place), count(most["rows"]), number(most["positives"])]
            for model in document["models"]:
                entry = of_model.get(model)
                value = None if entry is None else entry["metrics"]["auc"]["mean"]
                text = DASH if value is None else f"{value:.4f}"
                is_best = entry is not None and entry["labels"] and value == best is not None
                cells.append(PARTS.marked(text, is_best))
            rows.append(cells)
        heads = [kind, "rows", "positives", *(breakable(m) for m in document["models"])]
        if rows:
            parts.append(PARTS.details(f"Task {task}", PARTS.table(heads, rows), not parts))
    return Markup().join(parts)


def cost_table(document: Mapping[str, Any]) -> Markup:
    """Floats, speed and epochs of every model, and what it is where a name is the caller's own."""
    named = any(cost["upstream"] != cost["model"] for cost in document["costs"])
    heads = ["model", *(["upstream"] if named else [])]
    heads += ["sets of tables", "floats in tables", "floats outside", "examples/s"]
    heads += ["best epoch of the epochs", "seconds a training"]
    rows = []
    for cost in document["costs"]:
        trainings = cost["trainings"]
        epochs = ", ".join(f"{t['best_epoch']} of {t['epochs']}" for t in trainings)
        seconds = sum(t["seconds"] for t in trainings) / len(trainings)
        rows.append(
            [
                breakable(cost["model"]),
                *([breakable(cost["upstream"])] if named else []),
                count(cost["sets"]),
                count(cost["tables"]),
                count(cost["outside"]),
                DASH if cost["examples_per_s"] is None else count(cost["examples_per_s"]),
                epochs,
                f"{seconds:.0f}",
            ]
        )
    return PARTS.table(heads, rows, 2 if named else 1)


def abundance_tables(document: Mapping[str, Any]) -> Markup:
    """Information abundance of every model's tables; empty where no model tells it."""
    parts: list[Markup] = []
    for model in document["models"]:
        trainings = [e["tables"] for e in document["abundance"] if e["model"] == model]
        found = abundance_table(trainings)
        if found:
            parts.append(PARTS.details(f"Model {model}", found, not parts))
    return Markup().join(parts)


def observed_table(document: Mapping[str, Any]) -> Markup:
    """What the models are observed by on the validation rows; empty where none is."""
    found: dict[str, dict[str, list[float]]] = {}
    for entry in document["observed"]:
        for name, value in entry["values"].items():
            found.setdefault(name, {}).setdefault(entry["model"], []).append(value)
    told = {model for of_model in found.values() for model in of_model}
    models = [model for model in document["models"] if model in told]
    rows = []
    for name, of_model in found.items():
        cells = [_significant(of_model[m]) if m in of_model else DASH for m in models]
        rows.append([breakable(name), *cells])
    heads = ["number", *(breakable(model) for model in models)]
    return Markup(PARTS.table(heads, rows)) if rows else Markup()


def rate_table(document: Mapping[str, Any]) -> Markup:
    """Validation AUC of every learning rate; the chosen one is underlined."""
    heads = [
        "model",
        *(f"x{rate:g}" for rate in document["rates"]),
        "rate of tables",
        "of all else",
    ]
    rows = []
    for cost in document["costs"]:
        cells: list[Any] = [breakable(cost["model"])]
        for tried in cost["rates"]:
            text = "diverged" if "diverged" in tried else DASH
            if tried["valid"] is not None:
                text = f"{tried['valid']:.4f} ({tried['best_epoch']})"
            cells.append(PARTS.marked(text, tried["rate"] == cost["rate"]))
        rates = (cost["table_learning_rate"], cost["dense_learning_rate"])
        rows.append([*cells, *(f"{rate:g}" for rate in rates)])
    return PARTS.table(heads, rows)


def points(entry: Mapping[str, Any]) -> str:
    """A difference in AUC points, with its deviation over seeds where there is one."""
    if entry["diff_mean"] is None:
        return DASH
    text = _signed(entry["diff_mean"])
    return text if entry["diff_sd"] is None else f"{text} ± {100 * entry['diff_sd']:.2f}"


def _means(
    document: Mapping[str, Any], task: str, scenario: str, slice_name: str
) -> list[Mapping[str, Any]]:
    """Entries of a place, in the order of the models."""
    place = (task, scenario, slice_name)
    return [e for e in document["means"] if (e["task"], e["scenario"], e["slice"]) == place]


def _is_small(entry: Mapping[str, Any]) -> bool:
    """Whether a place has too few rows for its best model to mean anything."""
    smallest = min(entry["positives"], entry["rows"] - entry["positives"])
    return entry["rows"] < MIN_ROWS or smallest < MIN_LABELS


def _best(entries: list[Mapping[str, Any]], metric: str, sign: int) -> float | None:
    """The best mean among models that are scored on the spec's labels."""
    means = [
        e["metrics"][metric]["mean"]
        for e in entries
        if e["labels"] and e["metrics"].get(metric, {"mean": None})["mean"] is not None
    ]
    return max(means, key=lambda value: sign * value) if means and sign and len(means) > 1 else None


def _of_the_truth(entries: list[Mapping[str, Any]]) -> str:
    """What the true probabilities are worth on these rows, where they are known."""
    told = ""
    for name, title in _OF_THE_TRUTH.items():
        known = [e["metrics"][name]["mean"] for e in entries if name in e["metrics"]]
        value = next((value for value in known if value is not None), None)
        told += "" if value is None else f" · {title} {value:.4f}"
    return told


def _name(entry: Mapping[str, Any]) -> Markup:
    name = breakable(entry["model"])
    return name if entry["labels"] else name + " (other labels)"


def _spread(value: Mapping[str, float | None] | None) -> str:
    if value is None or value["mean"] is None:
        return DASH
    mean = f"{value['mean']:.4f}"
    return mean if value["sd"] is None else f"{mean} ± {value['sd']:.4f}"


def _significant(values: list[float]) -> str:
    """Mean and deviation over seeds, to four digits."""
    mean = f"{np.mean(values):.4g}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.2g}"


def _signed(difference: float) -> str:
    """AUC points with a sign, none on what is rounded to zero."""
    text = f"{100 * difference:+.2f}"
    return "0.00" if float(text) == 0.0 else text


def _p(value: float | None) -> str:
    if value is None:
        return DASH
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
