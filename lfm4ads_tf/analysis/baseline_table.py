"""The baselines' results over all rows, as a table."""

from __future__ import annotations

from lfm4ads_tf.analysis.markup import count, escape, interval, number, row, spread, table
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
            cells.append(number(results.positives(*identity, split=split)))
            shown = [spread(results.values(m, *identity, split=split)) for m in _METRICS]
            bounds = [results.values(b, *identity, split=split) for b in ("auc_low", "auc_high")]
            daily = spread(results.values("auc", *identity, split=split, refresh="daily"))
            cells += [shown[0], interval(*bounds), *shown[1:], daily]
            rows.append(row(cells, text_columns=2))
    if not rows:
        return ""
    auc, *others = _METRICS.values()
    heads = ["method", "task", "rows", "positives", auc, "95 % interval", *others]
    heads.append("AUC daily")
    return f"<h3>Baselines, all scenarios</h3>{table(heads, rows, text_columns=2)}"
