"""The baselines' results over all rows, as a table."""

from __future__ import annotations

from markupsafe import Markup

from lfm4ads_tf.analysis.markup import PARTS, count, interval, number, spread
from lfm4ads_tf.analysis.results import Results

_METRICS = {"auc": "AUC", "gauc": "GAUC", "logloss": "logloss", "calibration": "calibration"}


def baseline_table(results: Results, split: str) -> Markup:
    """Trees, logistic regression, popularity and constant; empty where none was fitted.

    Args:
        results: The results.
        split: `valid` or `test`.
    """
    rows = []
    for task in results.names("task", stage="baseline", scenario="all", split=split):
        for method in results.names("method", stage="baseline", scenario="all", task=task):
            identity = ("baseline", "all", task, method)
            cells = [method, task, count(results.rows(*identity, split=split) or 0)]
            cells.append(number(results.positives(*identity, split=split)))
            shown = [spread(results.values(m, *identity, split=split)) for m in _METRICS]
            bounds = [results.values(b, *identity, split=split) for b in ("auc_low", "auc_high")]
            daily = spread(results.values("auc", *identity, split=split, refresh="daily"))
            cells += [shown[0], interval(*bounds), *shown[1:], daily]
            rows.append(cells)
    auc, *others = _METRICS.values()
    heads = ["method", "task", "rows", "positives", auc, "95 % interval", *others]
    heads.append("AUC daily")
    return PARTS.table(heads, rows, 2, "Baselines, all scenarios")
