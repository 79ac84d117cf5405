"""Bars of all methods: differences to `none`, and AUC by slice."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from lfm4ads_tf.analysis.bar_panel import Bar, bar_panel
from lfm4ads_tf.analysis.markup import PARTS, count, number, spread, titled
from lfm4ads_tf.analysis.palette import Palette
from lfm4ads_tf.analysis.result_tables import difference
from lfm4ads_tf.analysis.results import BASELINE, MIN_LABELS, MIN_ROWS, Results
from lfm4ads_tf.analysis.verdict import verdict
from lfm4ads_tf.baselines.registry import BASELINES

_CHANCE = 0.5
_SMALL = f"Too few to be drawn: fewer than {MIN_ROWS} rows, or {MIN_LABELS} positives or negatives."


class MethodBars:
    """The bar figures of a run's test results.

    Args:
        results: The results.
        palette: Colours of the methods.
    """

    def __init__(self, results: Results, palette: Palette) -> None:
        self._results = results
        self._palette = palette

    def differences(self) -> Markup:
        """AUC difference to `none`: one panel per scenario, a block per task; may be empty."""
        blocks = []
        for task in self._results.names("task", stage="downstream", split="test"):
            panels = [
                self._difference_panel(scenario, task)
                for scenario in self._results.names("scenario", stage="downstream", task=task)
            ]
            if any(panels):
                blocks.append(
                    (task, PARTS.grid(panels) + self._listed(task, stages=("downstream",)))
                )
        return _blocks(blocks)

    def slices(self) -> Markup:
        """AUC on every slice: one panel per scenario, a block per task; may be empty."""
        blocks = []
        for task in self._results.names("task", stage="upstream", split="test"):
            panels = [self._slice_panel("upstream", "all", task)]
            panels += [
                self._slice_panel("downstream", scenario, task)
                for scenario in self._results.names("scenario", stage="downstream", task=task)
            ]
            listed = self._listed(task, sliced=True)
            if any(panels) or listed:
                blocks.append((task, PARTS.grid(panels) + listed))
        return _blocks(blocks)

    def _listed(
        self,
        task: str,
        *,
        stages: tuple[str, ...] = ("upstream", "downstream"),
        sliced: bool = False,
    ) -> Markup:
        """A small table of what rests on too few rows to be drawn; empty where nothing does."""
        rows = []
        for stage in stages:
            scenarios = self._results.names("scenario", stage=stage, task=task)
            for scenario in scenarios if stage == "downstream" else ["all"]:
                method, *_ = self._results.names(
                    "method", stage=stage, scenario=scenario, task=task
                ) or [""]
                names = self._results.names("slice", stage=stage, scenario=scenario, task=task)
                for name in names if sliced else ["all"]:
                    identity = (stage, scenario, task, method)
                    scored = self._results.rows(*identity, slice_name=name)
                    if scored and self._results.is_small(*identity, slice_name=name):
                        positives = number(self._results.positives(*identity, slice_name=name))
                        rows.append((titled(scenario), name, count(scored), positives))
        heads = ["scenario", "slice", "rows", "positives"]
        return PARTS.noted(_SMALL, PARTS.table(heads, list(dict.fromkeys(rows)), 2))

    def _difference_panel(self, scenario: str, task: str) -> Markup:
        """Differences in AUC points, on an axis of the panel's own, symmetric around zero."""
        bars, reach = [], 0.0
        if self._is_small("downstream", scenario, task, "all"):
            return Markup()
        methods = self._results.names("method", stage="downstream", scenario=scenario, task=task)
        for method in methods:
            if method == BASELINE or method in BASELINES:
                continue  # no transfer; a constant would set the scale of the axis
            comparison = self._results.comparison(scenario, task, method)
            value = None if comparison is None else 100 * comparison["diff_mean"]
            deviation = None if comparison is None else 100 * (comparison["diff_sd"] or 0.0)
            if value is not None:
                reach = max(reach, abs(value) + (deviation or 0.0))
            pale = comparison is not None and verdict(comparison) in ("noise", "unknown")
            colour = self._palette.variable(method)
            bars.append(Bar(method, difference(comparison), value, deviation, colour, pale))
        if not any(bar.value is not None for bar in bars):
            return Markup()
        reach = _nice(reach)
        digits = max(0, -int(np.floor(np.log10(reach) + 1e-9))) + (reach < 10)
        return bar_panel(scenario, [("", bars)], start=0.0, limits=(-reach, reach), digits=digits)

    def _slice_panel(self, stage: str, scenario: str, task: str) -> Markup:
        """AUC by slice, from chance (0.5), on one axis for all panels of the task."""
        groups = []
        for name in self._results.names("slice", stage=stage, scenario=scenario, task=task):
            bars, rows = [], 0
            if self._is_small(stage, scenario, task, name):
                continue
            for method in self._results.names("method", stage=stage, scenario=scenario, task=task):
                identity = (stage, scenario, task, method)
                values = self._results.values("auc", *identity, slice_name=name)
                rows = max(rows, self._results.rows(*identity, slice_name=name) or 0)
                mean = float(np.mean(values)) if values else None
                deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
                colour = self._palette.variable(method)
                bars.append(Bar(method, spread(values), mean, deviation, colour))
            positives = number(self._results.positives(*identity, slice_name=name))
            groups.append((f"{name}: {count(rows)} rows, {positives} positives", bars))
        if not groups:
            return Markup()
        limits = self._auc_limits(task)
        title = "all scenarios" if scenario == "all" else scenario
        return bar_panel(title, groups, start=_CHANCE, limits=limits, digits=2)

    def _is_small(self, stage: str, scenario: str, task: str, name: str) -> bool:
        """Whether a slice is listed and not drawn; the methods of a place share its rows."""
        methods = self._results.names("method", stage=stage, scenario=scenario, task=task)
        return all(
            self._results.is_small(stage, scenario, task, m, slice_name=name) for m in methods
        )

    def _auc_limits(self, task: str) -> tuple[float, float]:
        """Chance and all values that the panels of a task show, rounded outwards to 0.05."""
        values = [_CHANCE, _CHANCE + 0.05]
        for stage in ("upstream", "downstream"):
            scenarios = self._results.names("scenario", stage=stage, task=task)
            for scenario in scenarios if stage == "downstream" else ["all"]:
                for method in self._results.names("method", stage=stage, scenario=scenario):
                    for name in self._results.names("slice", stage=stage, scenario=scenario):
                        if self._is_small(stage, scenario, task, name):
                            continue
                        values += self._results.values(
                            "auc", stage, scenario, task, method, slice_name=name
                        )
        return float(np.floor(min(values) * 20) / 20), float(np.ceil(max(values) * 20) / 20)


def _nice(reach: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    if reach <= 0:
        return 0.1
    power = 10.0 ** np.floor(np.log10(reach))
    return float(next(step * power for step in (1, 2, 5, 10) if reach <= step * power * 1.0001))


def _blocks(blocks: list[tuple[str, Markup]]) -> Markup:
    """One block per task; those after the first open on a click."""
    return Markup().join(
        PARTS.details(f"Task {task}", body, opened=k == 0) for k, (task, body) in enumerate(blocks)
    )
