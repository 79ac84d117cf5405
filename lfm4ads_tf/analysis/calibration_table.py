"""The upstream's calibration per scenario and task."""

from __future__ import annotations

from markupsafe import Markup

from lfm4ads_tf.analysis.markup import PARTS, count, number, spread, titled
from lfm4ads_tf.analysis.results import UPSTREAM, Results

OWN_TABLE = ("mean_prediction", "mean_label", "calibration_error")
"""Metrics that are shown here and not among the results."""


def calibration_table(results: Results, split: str = "test") -> Markup:
    """Mean prediction, mean label, their ratio and the calibration error; empty without results."""
    rows = []
    for scenario in results.names("scenario", stage="upstream", split=split):
        for task in results.names("task", stage="upstream", scenario=scenario):
            identity = ("upstream", scenario, task, UPSTREAM)
            cells = [titled(scenario), task]
            cells.append(count(results.rows(*identity, split=split) or 0))
            cells.append(number(results.positives(*identity, split=split)))
            for metric in ("mean_prediction", "mean_label", "calibration", "calibration_error"):
                cells.append(spread(results.values(metric, *identity, split=split)))
            rows.append(cells)
    heads = ["scenario", "task", "rows", "positives"]
    heads += ["mean prediction", "mean label", "ratio", "error"]
    return PARTS.table(heads, rows, 2)
