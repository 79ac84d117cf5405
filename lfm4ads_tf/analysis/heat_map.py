"""A table of values as coloured cells, in an inline SVG that follows the page's theme."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

STRONGEST = 0.45
"""Opacity of the strongest cell; text on it keeps a contrast of 4.5:1 in both themes."""

_WIDTH, _HEIGHT, _GAP = 92, 30, 2
_HEAD, _LETTER = 40, 7.2


@dataclass(frozen=True)
class HeatCell:
    """One cell.

    Attributes:
        value: What the colour shows, None when undefined.
        mark: Signs behind the value, such as `*`.
        title: What the pointer and a screen reader get; plain text.
        chosen: Whether it is framed.
    """

    value: float | None
    mark: str = ""
    title: str = ""
    chosen: bool = False


def heat_map(
    rows: Sequence[str],
    columns: Sequence[tuple[str, str]],
    cells: Mapping[tuple[str, tuple[str, str]], HeatCell],
    *,
    title: str,
    width: int = _WIDTH,
    height: int = _HEIGHT,
    write: Callable[[float], str] | None = None,
) -> Markup:
    """Draws cells in the colours of gain and loss, each with its value as text.

    The opacity of a colour is |value| over the largest |value| of the map, times `STRONGEST`.

    Args:
        rows: Heads of the rows, from the top; plain text.
        columns: Two lines of each column's head.
        cells: (row, column) -> cell; one that is missing stays empty.
        title: What a screen reader says of the whole.
        width, height: Of a cell, in pixels.
        write: A value as text, which may be empty; where absent two decimals with a sign.

    Returns:
        An `svg` element; empty text without any value.
    """
    values = [abs(c.value) for c in cells.values() if c.value is not None]
    if not values:
        return Markup()
    reach = max(values)
    left = round(max(len(r) for r in rows) * _LETTER) + 12
    wide, high = left + len(columns) * width, _HEAD + len(rows) * height
    parts = []
    for c, lines in enumerate(columns):
        middle = left + (c + 0.5) * width
        for k, line in enumerate(lines):
            parts.append(_text(middle, 14 + 16 * k, line, "middle", soft=k == 0))
    for r, name in enumerate(rows):
        top = _HEAD + r * height
        parts.append(_text(left - 10, top + height / 2 + 4, name, "end"))
        for c, column in enumerate(columns):
            cell = cells.get((name, column))
            if cell is not None:
                place = (left + c * width, top, width, height)
                parts.append(_cell(cell, place, reach, write or _signed))
    return Markup(
        f'<svg role="img" aria-label="{escape(title)}" width="{wide}" height="{high}" '
        f'viewBox="0 0 {wide} {high}" font-size="12.5">{"".join(parts)}</svg>'
    )


def _cell(
    cell: HeatCell,
    place: tuple[float, float, float, float],
    reach: float,
    write: Callable[[float], str],
) -> str:
    """A cell at left, top, width and height."""
    left, top, width, height = place
    colour, opacity = "var(--rule)", 0.35
    if cell.value is not None:
        colour = "var(--loss)" if cell.value < 0 else "var(--gain)"
        opacity = round(STRONGEST * abs(cell.value) / reach, 3) if reach else 0.0
    frame = ' stroke="var(--text)" stroke-width="2"' if cell.chosen else ""
    text = "–" if cell.value is None else write(cell.value) + cell.mark
    written = _text(left + width / 2, top + height / 2 + 4, text, "middle") if text else ""
    return (
        f"<g><title>{escape(cell.title)}</title>"
        f'<rect x="{left + _GAP}" y="{top + _GAP}" width="{width - 2 * _GAP}" '
        f'height="{height - 2 * _GAP}" rx="3" style="fill:{colour}" fill-opacity="{opacity}"'
        f"{frame}/>{written}</g>"
    )


def _signed(value: float) -> str:
    """Two decimals with a sign, none on what is rounded to zero."""
    text = f"{value:+.2f}"
    return "0.00" if float(text) == 0.0 else text


def _text(x: float, y: float, text: str, anchor: str, *, soft: bool = False) -> str:
    colour = "var(--soft)" if soft else "var(--text)"
    return (
        f'<text x="{round(x, 1)}" y="{round(y, 1)}" text-anchor="{anchor}" '
        f'style="fill:{colour}">{escape(text)}</text>'
    )
