"""A comparison in a few lines, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def comparison_text(document: Mapping[str, Any]) -> str:
    """Mean test AUC of every model and task over all rows, with the deviation over seeds.

    Args:
        document: What `comparison.json` holds.
    """
    means = {
        (e["model"], e["task"]): e["metrics"]["auc"]
        for e in document["means"]
        if e["scenario"] == "all" and e["slice"] == "all"
    }
    rows = [["test AUC", *document["tasks"], "rate", "examples/s"]]
    for cost in document["costs"]:
        speed = cost["examples_per_s"]
        cells = [_value(means[cost["model"], task]) for task in document["tasks"]]
        told = "–" if speed is None else f"{speed:,.0f}"
        rows.append([cost["model"], *cells, f"x{cost['rate']:g}", told])
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _value(auc: Mapping[str, float | None]) -> str:
    """`mean ± deviation`, a dash where undefined."""
    if auc["mean"] is None:
        return "–"
    return f"{auc['mean']:.4f}" + ("" if auc["sd"] is None else f" ± {auc['sd']:.4f}")
