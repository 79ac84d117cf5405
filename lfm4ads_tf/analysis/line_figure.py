"""A small line chart as an inline SVG whose colours follow the page's theme."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import matplotlib
from markupsafe import Markup, escape
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedLocator, FuncFormatter, MaxNLocator, NullLocator

# Stand-ins that Matplotlib can draw with, replaced by the theme's colours afterwards.
_TEXT, _RULE, _SOFT = "#010101", "#020202", "#030300"
_LEVEL = 5  # names of the horizontal axis that have room side by side
_THEME = {"var(--text)": _TEXT, "var(--rule)": _RULE, "var(--soft)": _SOFT}


@dataclass(frozen=True)
class Line:
    """One line.

    Attributes:
        x, y: The points.
        colour: A CSS colour.
        dash: A Matplotlib line style.
        marker: Whether points are marked.
        faint: Whether it is drawn thin.
        deviations: Half the length of each point's whisker; without any there are none.
    """

    x: Sequence[float]
    y: Sequence[float]
    colour: str
    dash: str = "-"
    marker: bool = False
    faint: bool = False
    deviations: Sequence[float] = field(default_factory=tuple)


def line_figure(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str,
    y_label: str = "",
    name: str,
    diagonal: bool = False,
    log_x: bool = False,
    x_names: Sequence[str] = (),
) -> Markup:
    """Draws lines.

    Args:
        lines: The lines; one without points is left out.
        title: What a screen reader says.
        x_label, y_label: Axis labels.
        name: Prefix of the SVG's ids, unique in the page.
        diagonal: Whether both axes span the same range from 0, with the line y = x.
        log_x: Whether the horizontal axis is logarithmic, with a tick at each point.
        x_names: Names at 0, 1, ... of the horizontal axis instead of numbers.

    Returns:
        An `svg` element without any reference to a resource outside of it.
    """
    colours = list(dict.fromkeys(line.colour for line in lines))
    stand_ins = {colour: f"#0404{k:02x}" for k, colour in enumerate(colours)}
    figure = Figure(figsize=(5.2, 3.1), dpi=72)
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0.0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0.0)
    for line in lines:
        if len(line.x):
            axes.plot(
                line.x,
                line.y,
                color=stand_ins[line.colour],
                linestyle=line.dash,
                linewidth=1.1 if line.faint else 1.8,
                marker="o" if line.marker or len(line.x) == 1 else None,
                markersize=3.5,
            )
            if any(line.deviations):
                axes.errorbar(
                    line.x,
                    line.y,
                    yerr=line.deviations,
                    fmt="none",
                    ecolor=stand_ins[line.colour],
                    elinewidth=1.1,
                    capsize=2.5,
                )
    _decorate(axes, x_label, y_label)
    if log_x:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(_apart([x for line in lines for x in line.x])))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(EngFormatter(places=1, sep=" "))
    crowded = len(x_names) > _LEVEL
    if x_names:
        axes.xaxis.set_major_locator(FixedLocator(range(len(x_names))))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: x_names[round(value)]))
        if crowded:
            axes.tick_params(axis="x", labelrotation=35)
            for label in axes.get_xticklabels():
                label.set_horizontalalignment("right")
    if diagonal:
        top = 1.05 * max(max([*line.x, *line.y]) for line in lines)
        axes.plot([0, top], [0, top], color=_SOFT, linewidth=1.2, linestyle="--", zorder=1)
        axes.set_xlim(0, top)
        axes.set_ylim(0, top)
    left, bottom = 0.155 if y_label else 0.125, 0.28 if crowded else 0.16
    figure.subplots_adjust(left=left, right=0.97, top=0.96, bottom=bottom)
    target = io.StringIO()
    # Text stays text; the salt makes two reports of one run equal.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(target, format="svg", metadata={"Date": None})
    svg = _inline(target.getvalue(), name)
    for colour, stand_in in [*stand_ins.items(), *_THEME.items()]:
        svg = svg.replace(stand_in, colour)
    return Markup(svg.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1))


def _apart(values: Sequence[float]) -> list[float]:
    """Values of which none is within a fifth of the one below: their labels have room."""
    kept: list[float] = []
    for value in sorted(set(values)):
        if not kept or value > 1.2 * kept[-1]:
            kept.append(value)
    return kept


def _decorate(axes: matplotlib.axes.Axes, x_label: str, y_label: str) -> None:
    axes.grid(color=_RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_RULE)
    axes.tick_params(colors=_TEXT, labelsize=10, length=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.7g}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    axes.set_xlabel(x_label, color=_TEXT, fontsize=11, parse_math=False)
    axes.set_ylabel(y_label, color=_TEXT, fontsize=11, parse_math=False)


def _inline(document: str, name: str) -> str:
    """An SVG document as an element of a page: ids of its own, nothing outside of it."""
    svg = document[document.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(xmlns(:\w+)?|version)="[^"]*"', "", svg)
    svg = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", svg)
    svg = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", svg)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sid="', f' id="{name}-', svg)
    svg = svg.replace('xlink:href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    # Hundredths of a pixel are enough; text such as tick labels is left alone.
    svg = re.sub(r'\b([dxy])="[^"]*"', lambda m: re.sub(r"(\.\d\d)\d+", r"\1", m[0]), svg)
    return re.sub(r"\s*\n\s*", " ", svg).strip()
