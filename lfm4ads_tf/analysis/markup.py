"""Small builders of escaped HTML, shared by the sections of the report."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

import numpy as np

DASH = "–"


def escape(value: object) -> str:
    """Text as HTML, quotes included."""
    return html.escape(str(value), quote=True)


def breakable(name: object) -> str:
    """A name as HTML that may break after `/`, `+`, `_` and `@`."""
    return "<wbr>".join(escape(part) for part in re.split(r"(?<=[/+_@])", str(name)) if part)


def spread(values: Iterable[float | None], digits: int = 4) -> str:
    """`mean ± deviation` over seeds, the mean alone for one seed, a dash where undefined."""
    known = [v for v in values if v is not None]
    if not known:
        return DASH
    mean = f"{np.mean(known):.{digits}f}"
    return mean if len(known) == 1 else f"{mean} ± {np.std(known, ddof=1):.{digits}f}"


def interval(lows: Iterable[float], highs: Iterable[float]) -> str:
    """`low to high`, means over seeds; a dash where undefined."""
    low, high = list(lows), list(highs)
    return f"{np.mean(low):.4f} to {np.mean(high):.4f}" if low and high else DASH


def number(value: int | None) -> str:
    """A whole number, a dash where it is not known."""
    return DASH if value is None else count(value)


def count(value: float) -> str:
    """A whole number with thousands separators."""
    return f"{value:,.0f}"


def plural(number: int, noun: str) -> str:
    """A number of things, such as `1 seed` or `3 seeds`."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def size(count_of_bytes: float) -> str:
    """A number of bytes in the unit that reads best."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count_of_bytes >= scale:
            return f"{count_of_bytes / scale:.1f} {unit}"
    return f"{count_of_bytes:.0f} B"


def duration(seconds: float) -> str:
    """A time in the unit that reads best."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def table(heads: Sequence[str], rows: Iterable[str], *, text_columns: int = 1) -> str:
    """A table that scrolls sideways on a narrow screen.

    Args:
        heads: Column heads, plain text.
        rows: Whole rows as HTML, see `row`.
        text_columns: Leading columns that are aligned to the left.
    """
    cells = "".join(
        f'<th scope="col"{_text_class(k < text_columns)}>{escape(h)}</th>'
        for k, h in enumerate(heads)
    )
    return (
        f'<div class="scroll"><table><thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def row(cells: Sequence[str], *, text_columns: int = 1) -> str:
    """A table row of HTML cells; the first is the row's head."""
    body = "".join(
        f"<td{_text_class(k < text_columns)}>{c}</td>" for k, c in enumerate(cells[1:], start=1)
    )
    return f'<tr><th scope="row" class="text">{cells[0]}</th>{body}</tr>'


def details(summary: str, body: str, *, opened: bool = False) -> str:
    """A block that opens on a click; `summary` is plain text."""
    state = " open" if opened else ""
    return f"<details{state}><summary>{escape(summary)}</summary>{body}</details>"


def grid(panels: Iterable[str]) -> str:
    """Panels side by side where they fit."""
    return f'<div class="grid">{"".join(panels)}</div>'


def _text_class(text: bool) -> str:
    return ' class="text"' if text else ""
