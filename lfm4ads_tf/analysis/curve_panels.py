"""Figures of training and calibration curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markupsafe import Markup

from lfm4ads_tf.analysis.calibration_line import CalibrationLine
from lfm4ads_tf.analysis.line_figure import Line, line_figure
from lfm4ads_tf.analysis.markup import PARTS, breakable, plural
from lfm4ads_tf.analysis.palette import Palette
from lfm4ads_tf.analysis.training_curve import Point, TrainingCurve

_SHOWN = 4  # downstream scenarios whose curves are open


def training_panels(
    curves: Sequence[TrainingCurve],
    scenarios: Sequence[str],
    palette: Palette,
    retrieval_metric: str,
) -> Markup:
    """Loss and validation curves of every model; empty without any point.

    Args:
        curves: The curves, one per model and seed.
        scenarios: Scenarios in the order of the page.
        palette: Colours of the methods.
        retrieval_metric: Name of the retriever's validation metric.
    """
    first: list[Markup] = []
    for stage, title, metric in (
        ("upstream", "Upstream", "AUC on rows not learnt yet"),
        ("retrieval", "Retriever", f"validation {retrieval_metric}"),
    ):
        mine = [c for c in curves if c.stage == stage]
        first += _pair(mine, title, metric, palette, f"curve-{stage}")
    blocks = []
    for k, scenario in enumerate(scenarios):
        mine = [c for c in curves if c.stage == "downstream" and c.scenario == scenario]
        panels = _pair(mine, scenario, "validation AUC", palette, f"curve-{k}")
        if panels:
            methods = list(dict.fromkeys(c.method for c in mine))
            drawn = PARTS.legend(methods, palette) + PARTS.grid(panels)
            blocks.append(Markup("<h4>{}</h4>{}").format(breakable(scenario), drawn))
    retrievers = list(dict.fromkeys(c.method for c in curves if c.stage == "retrieval"))
    parts = []
    if first:
        named = PARTS.legend(retrievers, palette) if len(retrievers) > 1 else ""
        parts += [Markup("<h3>Upstream and retriever</h3>"), named, PARTS.grid(first)]
    if blocks:
        parts += [Markup("<h3>Downstream models</h3>"), *blocks[:_SHOWN]]
    if more := blocks[_SHOWN:]:
        parts.append(PARTS.details(plural(len(more), "more scenario"), Markup().join(more)))
    return Markup().join(parts)


def calibration_panels(
    lines: Sequence[CalibrationLine], scenarios: Sequence[str], tasks: Sequence[str]
) -> Markup:
    """Calibration curves: one panel per scenario and method, a line per task; may be empty."""
    palette = Palette(tasks)
    panels = []
    keys = dict.fromkeys((line.scenario, line.method) for line in lines)
    order = {name: k for k, name in enumerate(["all", *scenarios])}
    for k, (scenario, method) in enumerate(
        sorted(keys, key=lambda key: order.get(key[0], len(order)))
    ):
        drawn = [
            Line(
                line.prediction.tolist(),
                line.label.tolist(),
                palette.variable(line.task),
                marker=True,
            )
            for line in lines
            if (line.scenario, line.method) == (scenario, method)
        ]
        head = f"{'all scenarios' if scenario == 'all' else scenario}: {method}"
        figure = line_figure(
            drawn,
            title=head,
            x_label="mean prediction",
            y_label="mean label",
            name=f"calibration-{k}",
            diagonal=True,
        )
        panels.append(PARTS.figure(head, figure))
    return PARTS.legend(tasks, palette) + PARTS.grid(panels) if panels else Markup()


def _pair(
    curves: Sequence[TrainingCurve], title: str, metric: str, palette: Palette, name: str
) -> list[Markup]:
    """The loss panel and the validation panel of some models, those that have points."""
    panels = []
    kinds: tuple[tuple[str, str, Callable[[TrainingCurve], Sequence[Point]]], ...] = (
        ("loss", "training loss", lambda c: c.loss),
        ("valid", metric, lambda c: c.validation),
    )
    for kind, label, points_of in kinds:
        lines = [
            Line(
                [p[0] for p in points_of(curve)],
                [p[1] for p in points_of(curve)],
                palette.variable(curve.method),
                palette.dash(curve.method),
                marker=kind == "valid",
                faint=len({c.seed for c in curves}) > 1,
            )
            for curve in curves
            if points_of(curve)
        ]
        # A loss is recorded every so many steps: a short training leaves too few for a curve.
        if lines and (kind == "valid" or max(len(line.x) for line in lines) > 2):
            head = f"{title}: {label}"
            figure = line_figure(lines, title=head, x_label="optimizer step", name=f"{name}-{kind}")
            panels.append(PARTS.figure(head, figure))
    return panels
