"""The tables of results of one split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

from lfm4ads_tf.analysis.baseline_table import baseline_table
from lfm4ads_tf.analysis.calibration_table import OWN_TABLE
from lfm4ads_tf.analysis.markup import (
    DASH,
    PARTS,
    breakable,
    count,
    interval,
    number,
    plural,
    spread,
    titled,
)
from lfm4ads_tf.analysis.results import BASELINE, MIN_LABELS, MIN_ROWS, Results
from lfm4ads_tf.analysis.verdict import verdict

_RANKING = ("auc", "gauc", "logloss", "calibration")
_BEST = "auc_best_possible"
_BOUNDS = ("auc_low", "auc_high")
_INTERVAL = "95 % interval"
TITLES = {"auc": "AUC", "gauc": "GAUC", _BEST: "best possible AUC"}


def result_tables(results: Results, split: str, point_in_time: Mapping[str, bool]) -> Markup:
    """Upstream, downstream and retrieval tables of one split; stages without results are left out.

    Args:
        results: The results.
        split: `valid` or `test`.
        point_in_time: Scenario -> whether its results are; the others are flagged.
    """
    parts = [
        _upstream(results, split, point_in_time),
        baseline_table(results, split),
        _downstream(results, split, point_in_time),
        _retrieval(results, split, point_in_time),
    ]
    missing = Markup("<p>There are no results on the {} split.</p>").format(split)
    return Markup().join(parts) or missing


def difference(comparison: Mapping[str, Any] | None) -> str:
    """A paired difference in AUC points (hundredths) as text, with p-value and seeds."""
    if comparison is None:
        return DASH
    text = f"{100 * comparison['diff_mean']:+.2f}"
    if float(text) == 0.0:  # no sign on what is rounded to zero
        text = "0.00"
    if comparison["diff_sd"] is None:
        return text
    p = "p < 0.001" if comparison["p"] < 0.001 else f"p {comparison['p']:.3f}"
    return f"{text} ± {100 * comparison['diff_sd']:.2f} ({p})"


def _upstream(results: Results, split: str, point_in_time: Mapping[str, bool]) -> Markup:
    metrics = _metrics(results, "upstream")
    rows: list[list[str]] = []
    small: list[list[str]] = []  # on few rows: folded
    for scenario in results.names("scenario", stage="upstream", split=split):
        for task in results.names("task", stage="upstream", scenario=scenario):
            identity = ("upstream", scenario, task, "upstream")
            cells = [_scenario(scenario, point_in_time), task]
            cells.append(count(results.rows(*identity, split=split) or 0))
            cells.append(number(results.positives(*identity, split=split)))
            values = [spread(results.values(m, *identity, split=split)) for m in metrics]
            cells += [values[0], _interval(results, *identity, split=split), *values[1:]]
            cells.append(spread(results.values("auc", *identity, split=split, refresh="daily")))
            listed = small if results.is_small(*identity, split=split) else rows
            listed.append(cells)
    if not rows and not small:
        return Markup()
    titles = [TITLES.get(m, m) for m in metrics]
    heads = ["scenario", "task", "rows", "positives", titles[0], _INTERVAL, *titles[1:]]
    heads.append("AUC daily")
    shown = Markup("<h3>Upstream</h3>") + PARTS.table(heads, rows, 2)
    if small:
        few = f"{plural(len(small), 'result')} on fewer than {MIN_ROWS} rows, or {MIN_LABELS} "
        few += "positives or negatives"
        shown += PARTS.details(few, PARTS.table(heads, small, 2), opened=not rows)
    return shown


def _downstream(results: Results, split: str, point_in_time: Mapping[str, bool]) -> Markup:
    metrics = _metrics(results, "downstream")
    heads = ["method", "AUC", _INTERVAL, "to none, AUC points"]
    heads += [TITLES.get(m, m) for m in metrics[1:]]
    heads.append("AUC daily")
    rows: list[str | list[str]] = []
    for scenario in results.names("scenario", stage="downstream", split=split):
        for task in results.names("task", stage="downstream", scenario=scenario):
            methods = results.names("method", stage="downstream", scenario=scenario, task=task)
            identity = ("downstream", scenario, task, methods[0])
            scored = results.rows(*identity, split=split)
            positives = number(results.positives(*identity, split=split))
            rows.append(
                _scenario(scenario, point_in_time)
                + f" · {task} · {count(scored or 0)} rows, {positives} positives"
            )
            rows += _group(results, scenario, task, methods, metrics, split)
    return PARTS.table(heads, rows, title="Downstream")


def _group(
    results: Results,
    scenario: str,
    task: str,
    methods: list[str],
    metrics: list[str],
    split: str,
) -> list[list[str]]:
    """One row per method; the best mean of each column is marked."""
    columns: list[list[list[float]]] = []
    for metric, refresh in [*((m, "frozen") for m in metrics), ("auc", "daily")]:
        columns.append(
            [
                results.values(
                    metric, "downstream", scenario, task, m, split=split, refresh=refresh
                )
                for m in methods
            ]
        )
    best = [
        None if name == _BEST else _best(name, column)
        for name, column in zip([*metrics, "auc"], columns, strict=True)
    ]
    rows = []
    for k, method in enumerate(methods):
        cells = [PARTS.marked(spread(column[k]), best[c] == k) for c, column in enumerate(columns)]
        comparison = results.comparison(scenario, task, method, split=split)
        judged = None if comparison is None else verdict(comparison)
        delta = "baseline" if method == BASELINE else difference(comparison)
        known = _interval(results, "downstream", scenario, task, method, split=split)
        rows.append([breakable(method), cells[0], known, PARTS.judged(delta, judged), *cells[1:]])
    return rows


def _retrieval(results: Results, split: str, point_in_time: Mapping[str, bool]) -> Markup:
    rows, metrics = [], results.metrics("retrieval")
    for scenario in results.names("scenario", stage="retrieval", split=split):
        for task in results.names("task", stage="retrieval", scenario=scenario):
            for method in results.names("method", stage="retrieval", scenario=scenario, task=task):
                identity = ("retrieval", scenario, task, method)
                cells = [_scenario(scenario, point_in_time), task, breakable(method)]
                cells.append(count(results.rows(*identity, split=split) or 0))
                cells.append(number(results.positives(*identity, split=split)))
                cells += [spread(results.values(m, *identity, split=split)) for m in metrics]
                rows.append(cells)
    heads = ["scenario", "task", "method", "users", "positives"]
    heads += [TITLES.get(m, m) for m in metrics]
    return PARTS.table(heads, rows, 3, "Retrieval")


def _metrics(results: Results, stage: str) -> list[str]:
    """Metrics of a stage in order; the best possible AUC only where the data know it.

    Those of the calibration report have a table of their own.
    """
    found = results.metrics(stage)
    return [m for m in (*_RANKING, _BEST) if m in found] + [
        m for m in found if m not in (*_RANKING, _BEST, *OWN_TABLE, *_BOUNDS)
    ]


def _interval(results: Results, *identity: str, split: str) -> str:
    """The interval of an AUC over draws of users, mean over seeds."""
    low, high = (results.values(bound, *identity, split=split) for bound in _BOUNDS)
    return interval(low, high)


def _best(metric: str, column: list[list[float]]) -> int | None:
    """Position of the best mean: lowest logloss, calibration nearest to 1, else the highest."""
    means = [float(np.mean(v)) if v else None for v in column]
    known = [(_cost(metric, mean), k) for k, mean in enumerate(means) if mean is not None]
    return min(known)[1] if len(known) > 1 else None


def _cost(metric: str, mean: float) -> float:
    if metric == "calibration":
        return abs(float(np.log(mean))) if mean > 0 else float("inf")
    return mean if metric == "logloss" else -mean


def _scenario(scenario: str, point_in_time: Mapping[str, bool]) -> Markup:
    """A scenario's name, flagged when it is not point in time."""
    # Rows of all scenarios are point in time where those of every one are.
    if point_in_time.get(scenario, all(point_in_time.values())):
        return titled(scenario)
    return titled(scenario) + Markup(
        '<abbr title="not point in time, see the warning">&nbsp;*</abbr>'
    )
