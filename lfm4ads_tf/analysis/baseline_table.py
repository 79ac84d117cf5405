"""The baselines' results over all rows, as a table."""

from __future__ import annotations

from lfm4ads_tf.analysis.markup import DASH, count, escape, row, spread, table
from lfm4ads_tf.analysis.results import Results

_METRICS = {"auc": "AUC", "gauc": "GAUC", "logloss": "logloss", "calibration": "calibration"}


def baseline_table(results: Results, split: str) -> str:
    """Trees, logistic regression, popularity and constant; empty where none was fitted.

    Args:
        results: The results.
        split: `valid` or `test`.
    """
    rows = []
    for task in results.names("task", stage="baseline", scenario="all", split=split):
        for method in results.names("method", stage="baseline", scenario="all", task=task):
            identity = ("baseline", "all", task, method)
            cells = [escape(method), escape(task), count(results.rows(*identity, split=split) or 0)]
            for metric in _METRICS:
                values = results.values(metric, *identity, split=split)
                cells.append(spread(values) if values else DASH)
            daily = results.values("auc", *identity, split=split, refresh="daily")
            rows.append(row([*cells, spread(daily) if daily else DASH], text_columns=2))
    if not rows:
        return ""
    heads = ["method", "task", "rows", *_METRICS.values(), "AUC daily"]
    return f"<h3>Baselines, all scenarios</h3>{table(heads, rows, text_columns=2)}"
