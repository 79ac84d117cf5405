"""One panel of horizontal bars, in HTML: it stretches with the page and its text can be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lfm4ads_tf.analysis.markup import breakable, escape


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        label: What it stands for; user text.
        text: The value as text.
        value: Where the bar ends, None when undefined.
        deviation: Half-length of the error bar, None for none.
        colour: A CSS colour.
        pale: Whether it is drawn pale: not told apart from noise.
    """

    label: str
    text: str
    value: float | None
    deviation: float | None
    colour: str
    pale: bool = False


def bar_panel(
    title: str,
    groups: Sequence[tuple[str, Sequence[Bar]]],
    *,
    start: float,
    limits: tuple[float, float],
    digits: int,
) -> str:
    """A panel of bars that all start at one value.

    Args:
        title: Head of the panel, plain text.
        groups: Head of a group (empty for none), plain text, and its bars.
        start: Value at which bars start, marked by a line.
        limits: Ends of the axis, `start` among or between them.
        digits: Decimals of the axis labels.

    Returns:
        A `figure` element.
    """
    body = []
    for head, bars in groups:
        if head:
            body.append(f"<h4>{escape(head)}</h4>")
        body += [_bar(bar, start, limits) for bar in bars]
    return (
        f'<figure class="bars"><figcaption>{breakable(title)}</figcaption>{"".join(body)}'
        f"{_axis(start, limits, digits)}</figure>"
    )


def _bar(bar: Bar, start: float, limits: tuple[float, float]) -> str:
    zero = _percent(start, limits)
    shapes = f'<line x1="{zero}%" x2="{zero}%" y1="-2" y2="16" stroke="var(--soft)"/>'
    if bar.value is not None:
        end = _percent(bar.value, limits)
        opacity = ' fill-opacity="0.5"' if bar.pale else ""
        shapes += (
            f'<rect x="{min(zero, end)}%" y="2" width="{round(abs(end - zero), 2)}%" height="10" '
            f'style="fill:{bar.colour}"{opacity}/>'
        )
    if bar.value is not None and bar.deviation:
        low = _percent(bar.value - bar.deviation, limits)
        high = _percent(bar.value + bar.deviation, limits)
        shapes += (
            f'<line x1="{low}%" x2="{high}%" y1="7" y2="7" stroke="var(--text)" '
            f'stroke-width="1.5"/>'
        )
        for end in (low, high):
            shapes += (
                f'<line x1="{end}%" x2="{end}%" y1="3" y2="11" stroke="var(--text)" '
                f'stroke-width="1.5"/>'
            )
    return (
        f'<div class="bar"><div class="head"><span>{breakable(bar.label)}</span>'
        f'<span>{escape(bar.text)}</span></div><svg aria-hidden="true">{shapes}</svg></div>'
    )


def _axis(start: float, limits: tuple[float, float], digits: int) -> str:
    """Labels at the ends and at the start of the bars, unless they would overlap."""
    signed = "+" if start == 0 else ""
    labels = [(limits[0], "first"), (limits[1], "last")]
    if 20 < _percent(start, limits) < 80:
        labels.insert(1, (start, ""))
    spans = "".join(
        f'<span class="{name}" style="left:{_percent(value, limits)}%">'
        f"{format(value, f'{signed if value else str()}.{digits}f')}</span>"
        for value, name in labels
    )
    return f'<div class="axis">{spans}</div>'


def _percent(value: float, limits: tuple[float, float]) -> float:
    """Position on the axis, cut at its ends."""
    low, high = limits
    return round(100 * min(max((value - low) / (high - low), 0.0), 1.0), 2)
