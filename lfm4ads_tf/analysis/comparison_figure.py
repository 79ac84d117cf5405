"""Differences of compared models to a baseline, as bars with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

from lfm4ads_tf.analysis.bar_panel import Bar, bar_panel
from lfm4ads_tf.analysis.comparison_tables import points
from lfm4ads_tf.analysis.markup import DASH, PARTS
from lfm4ads_tf.analysis.palette import Palette
from lfm4ads_tf.analysis.verdict import LEVEL


def difference_panels(
    document: Mapping[str, Any], baseline: str, palette: Palette, scenario: str = "all"
) -> Markup:
    """One panel per task; empty where no difference is defined.

    Args:
        document: What `comparison.json` holds.
        baseline: The model that the others are compared with.
        palette: Colours of the models.
        scenario: Whose rows are compared.
    """
    panels = []
    for task in document["tasks"]:
        bars, reach = [], 0.0
        for entry in document["comparisons"]:
            if (entry["baseline"], entry["task"], entry["scenario"]) != (baseline, task, scenario):
                continue
            if entry["diff_mean"] is None:
                why = DASH if entry["comparable"] else "other labels"
                bars.append(Bar(entry["model"], why, None, None, "var(--soft)"))
                continue
            value = 100 * entry["diff_mean"]
            ends = None
            if entry["low"] is not None:
                ends = (100 * entry["low"], 100 * entry["high"])
            reach = max(reach, abs(value), *(abs(end) for end in ends or ()))
            colour = palette.variable(entry["model"])
            text = points(entry)
            bars.append(Bar(entry["model"], text, value, None, colour, _is_pale(entry), ends))
        if reach > 0:
            limit = _rounded(reach)
            digits = max(0, -int(np.floor(np.log10(limit) + 1e-9))) + (limit < 10)
            panels.append(
                bar_panel(task, [("", bars)], start=0.0, limits=(-limit, limit), digits=digits)
            )
    return PARTS.grid(panels) if panels else Markup()


def _is_pale(entry: Mapping[str, Any]) -> bool:
    """Whether a difference is not told apart from noise by both its tests."""
    over_users = entry["low"] is not None and (entry["low"] > 0 or entry["high"] < 0)
    over_seeds = entry["p_holm"] is not None and entry["p_holm"] < LEVEL
    return not (over_users and over_seeds)


def _rounded(reach: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** np.floor(np.log10(reach))
    return float(next(step * power for step in (1, 2, 5, 10) if reach <= step * power * 1.0001))
