"""One panel of horizontal bars, in HTML: it stretches with the page and its text can be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from markupsafe import Markup

from lfm4ads_tf.analysis.markup import macros


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
        interval: Ends of the error bar where it is not symmetric; goes before `deviation`.
    """

    label: str
    text: str
    value: float | None
    deviation: float | None
    colour: str
    pale: bool = False
    interval: tuple[float, float] | None = None


def bar_panel(
    title: str,
    groups: Sequence[tuple[str, Sequence[Bar]]],
    *,
    start: float,
    limits: tuple[float, float],
    digits: int,
) -> Markup:
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
    labels = [(limits[0], "first"), (limits[1], "last")]
    if 20 < _percent(start, limits) < 80:  # else they would overlap
        labels.insert(1, (start, ""))
    signed = "+" if start == 0 else ""
    axis = [
        (name, _percent(value, limits), format(value, f"{signed if value else ''}.{digits}f"))
        for value, name in labels
    ]
    return macros("bars.html").panel(title, groups, start, axis, partial(_percent, limits=limits))


def _percent(value: float, limits: tuple[float, float]) -> float:
    """Position on the axis, cut at its ends."""
    low, high = limits
    return round(100 * min(max((value - low) / (high - low), 0.0), 1.0), 2)
