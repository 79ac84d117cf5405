"""The templates of the reports, and how values are written in them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

DASH = "–"


def macros(template: str) -> Any:
    """The macros of a file in `templates`; each returns HTML with its arguments escaped."""
    return _ENVIRONMENT.get_template(template).module


def page(template: str, **values: object) -> str:
    """A whole file of `templates`, filled with escaped values."""
    return _ENVIRONMENT.get_template(template).render(values)


def breakable(name: object) -> Markup:
    """A name as HTML that may break after `/`, `+`, `_` and `@`."""
    return Markup("<wbr>").join(part for part in re.split(r"(?<=[/+_@])", str(name)) if part)


def titled(scenario: str) -> Markup:
    """A scenario's name as HTML, `all` in words."""
    return Markup("all scenarios") if scenario == "all" else breakable(scenario)


def coded(message: str) -> Markup:
    """A message as HTML; what stands in backticks is code."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(message))))


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


def plain(value: object) -> str:
    """A value as a reader writes it: a whole number without decimals."""
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def plural(number: int, noun: str, several: str | None = None) -> str:
    """A number of things, such as `1 seed` or `3 seeds`; `several` is the noun of many."""
    return f"{count(number)} {noun if number == 1 else several or noun + 's'}"


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


_ENVIRONMENT = Environment(
    loader=PackageLoader(__package__),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {
    f.__name__: f for f in (breakable, coded, spread, number, count, plain, plural, size)
}
PARTS = macros("parts.html")
"""Tables, figures and the like, see `templates/parts.html`."""
