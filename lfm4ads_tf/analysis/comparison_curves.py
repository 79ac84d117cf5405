"""AUC and information abundance of compared models by the floats in their tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from lfm4ads_tf.analysis.line_figure import Line, line_figure
from lfm4ads_tf.analysis.markup import DASH, PARTS, breakable, count, spread
from lfm4ads_tf.analysis.palette import Palette

CURVE_NOTE = (
    "A point for each model of a curve, at the trainable floats in its tables on a logarithmic "
    "axis; whiskers are the deviation over seeds. Abundance is the mean over the tables of what "
    "“joined” says below: all sets of a table side by side, whose width is that of one table with "
    "as many floats, so that the curves compare."
)
_ABUNDANCE = "information abundance"


def curve_panels(document: Mapping[str, Any]) -> Markup:
    """A panel for each task and one for abundance, and the numbers; empty without curves.

    Args:
        document: What `comparison.json` holds.
    """
    curves: Mapping[str, Sequence[str]] = document["curves"]
    if not curves:
        return Markup()
    floats = {cost["model"]: cost["tables"] for cost in document["costs"]}
    measured = {f"{task}: test AUC": _auc(document, task) for task in document["tasks"]}
    measured[_ABUNDANCE] = _abundance(document)
    palette = Palette(list(curves))
    panels = []
    for k, (title, values) in enumerate(measured.items()):
        lines = []
        for curve, models in curves.items():
            known = sorted((m for m in models if values.get(m)), key=lambda m: floats[m])
            lines.append(
                Line(
                    [floats[m] for m in known],
                    [float(np.mean(values[m])) for m in known],
                    palette.variable(curve),
                    palette.dash(curve),
                    marker=True,
                    deviations=[_deviation(values[m]) for m in known],
                )
            )
        if any(len(line.x) for line in lines):
            figure = line_figure(
                lines, title=title, x_label="floats in tables", name=f"growth-{k}", log_x=True
            )
            panels.append(PARTS.figure(title, figure))
    drawn = PARTS.legend(list(curves), palette) + PARTS.grid(panels)
    return Markup(drawn + _numbers(curves, floats, measured))


def _numbers(
    curves: Mapping[str, Sequence[str]],
    floats: Mapping[str, int],
    measured: Mapping[str, Mapping[str, Sequence[float]]],
) -> Markup:
    """What is drawn, as a table."""
    rows: list[str | list[Any]] = []
    for curve, models in curves.items():
        rows.append(curve)
        for model in sorted(models, key=lambda m: floats[m]):
            cells: list[Any] = [breakable(model), count(floats[model])]
            for title, values in measured.items():
                found = values.get(model)
                digits = 2 if title == _ABUNDANCE else 4
                cells.append(spread(found, digits) if found else DASH)
            rows.append(cells)
    table: Markup = PARTS.table(["model", "floats in tables", *measured], rows)
    return table


def _auc(document: Mapping[str, Any], task: str) -> dict[str, list[float]]:
    """Model -> AUC on all test rows by seed, of models that are scored on the spec's labels."""
    found: dict[str, list[float]] = {}
    for entry in document["results"]:
        place = (entry["task"], entry["scenario"], entry["slice"])
        value = entry["metrics"]["auc"]
        if place == (task, "all", "all") and entry["labels"] and value is not None:
            found.setdefault(entry["model"], []).append(value)
    return found


def _abundance(document: Mapping[str, Any]) -> dict[str, list[float]]:
    """Model -> mean abundance over its tables by seed."""
    found: dict[str, list[float]] = {}
    for entry in document["abundance"]:
        known = [t["joined"] for t in entry["tables"] if t["joined"] is not None]
        if known:
            found.setdefault(entry["model"], []).append(float(np.mean(known)))
    return found


def _deviation(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
