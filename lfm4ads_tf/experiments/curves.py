"""The experiment's figure: AUC over the layers, one panel per usage and tab."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lfm4ads_tf.experiments.public_method import LAYERS, METHODS, PARTS, VANILLA, PublicMethod
from lfm4ads_tf.experiments.public_results import PublicResults
from lfm4ads_tf.files import staged_file

_COLOURS = {
    "concat": "#c4500a",
    "gate": "#008060",
    "warm start": "#008060",
    "IR & CR": "#008060",
    "SUM": "#0072b2",
    "IR & UR": "#0072b2",
}
_NEUTRAL = "#6d7784"  # the baselines without an upstream
_USAGES = ("feature", "module", "model")


def draw_curves(results: PublicResults, out: Path) -> None:
    """Writes `curves.svg` and `curves.png`.

    A curve joins the methods of one kind over their layers, with a band of one deviation where
    there are several trials; SUM, Vanilla, Retriever and IR & UR are horizontal lines.

    Args:
        results: What is drawn.
        out: Folder of the two files.
    """
    figure = Figure(figsize=(3.2 * len(results.tabs) + 1.2, 8.4), dpi=110)
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(_USAGES), len(results.tabs), squeeze=False)
    for row, usage in zip(panels, _USAGES, strict=True):
        methods = [m for m in METHODS if m.usage == usage]
        if usage == "feature":
            methods += [m for m in METHODS if m.name == VANILLA]
        for axes, tab in zip(row, results.tabs, strict=True):
            _panel(axes, results, methods, tab)
            axes.set_title(f"{usage} level, tab {tab}", fontsize=9)
        row[0].set_ylabel("test AUC", fontsize=9)
    figure.tight_layout()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "curves"}):
        for kind, metadata in (("svg", {"Date": None}), ("png", {})):
            with staged_file(out / f"curves.{kind}") as staging:
                figure.savefig(staging, format=kind, metadata=metadata)


def _panel(axes: Any, results: PublicResults, methods: Sequence[PublicMethod], tab: str) -> None:
    kinds = list(dict.fromkeys(m.curve or m.label for m in methods))
    for kind in kinds:
        colour = _COLOURS.get(kind, _NEUTRAL)
        points = [
            (m.layer, *spread)
            for m in methods
            if (m.curve or m.label) == kind and (spread := results.spread(m.name, tab))
        ]
        if not points:
            continue
        layers, means, deviations = zip(*points, strict=True)
        if layers[0] is None:
            axes.axhline(means[0], color=colour, linestyle="--", linewidth=1.2, label=kind)
            continue
        axes.plot(layers, means, color=colour, marker="o", markersize=3, label=kind)
        if None not in deviations:
            low = [m - d for m, d in zip(means, deviations, strict=True)]
            high = [m + d for m, d in zip(means, deviations, strict=True)]
            axes.fill_between(layers, low, high, color=colour, alpha=0.15, linewidth=0)
    names = PARTS if methods[0].usage == "module" else LAYERS
    ticks = [name.replace("_", " ") for name in names]
    axes.set_xticks(range(len(ticks)), ticks, rotation=45, ha="right", fontsize=7)
    axes.tick_params(axis="y", labelsize=7)
    axes.grid(linewidth=0.4)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, loc="best")
