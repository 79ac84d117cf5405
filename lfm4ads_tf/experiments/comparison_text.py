"""A comparison in a few lines, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def comparison_text(document: Mapping[str, Any]) -> str:
    """Mean test AUC of every model, with the deviation over seeds.

    Over all rows a column for each task; with scenarios as the axis a block for each task, with a
    column for all rows and for each scenario, that of the most test rows first.

    Args:
        document: What `comparison.json` holds.
    """
    means = {
        (e["model"], e["scenario"], e["task"]): e["metrics"]["auc"]
        for e in document["means"]
        if e["slice"] == "all"
    }
    if document["axis"] == "task":
        places = [(task, "all", task) for task in document["tasks"]]
        return _block("test AUC", document, means, places)
    sizes = {e["scenario"]: e["rows"] for e in document["means"] if e["slice"] == "all"}
    scenarios = sorted(sizes, key=lambda scenario: (scenario != "all", -sizes[scenario]))
    return "\n\n".join(
        _block(f"{task}, test AUC", document, means, [(s, s, task) for s in scenarios])
        for task in document["tasks"]
    )


def _block(
    title: str,
    document: Mapping[str, Any],
    means: Mapping[tuple[str, str, str], Mapping[str, float | None]],
    places: Sequence[tuple[str, str, str]],
) -> str:
    """A row for each model, a column for each (head, scenario, task)."""
    rows = [[title, *(head for head, _, _ in places), "rate", "examples/s"]]
    for cost in document["costs"]:
        speed = cost["examples_per_s"]
        cells = [_value(means.get((cost["model"], scenario, task))) for _, scenario, task in places]
        told = "–" if speed is None else f"{speed:,.0f}"
        rows.append([cost["model"], *cells, f"x{cost['rate']:g}", told])
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _value(auc: Mapping[str, float | None] | None) -> str:
    """`mean ± deviation`, a dash where undefined."""
    if auc is None or auc["mean"] is None:
        return "–"
    return f"{auc['mean']:.4f}" + ("" if auc["sd"] is None else f" ± {auc['sd']:.4f}")
