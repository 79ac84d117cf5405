"""The key of a figure's colours."""

from __future__ import annotations

from collections.abc import Sequence

from lfm4ads_tf.analysis.markup import breakable
from lfm4ads_tf.analysis.palette import Palette

_DASH_ARRAYS = {"-": "", "--": "6 3", ":": "2 3", "-.": "7 3 2 3"}


def legend(names: Sequence[str], palette: Palette) -> str:
    """A list of names, each with its line."""
    items = []
    for name in names:
        line = (
            f'<line x1="0" x2="26" y1="6" y2="6" stroke-width="3" '
            f'stroke-dasharray="{_DASH_ARRAYS[palette.dash(name)]}" '
            f'style="stroke:{palette.variable(name)}"/>'
        )
        svg = f'<svg viewBox="0 0 26 12" aria-hidden="true">{line}</svg>'
        items.append(f"<li>{svg}<span>{breakable(name)}</span></li>")
    return f'<ul class="legend">{"".join(items)}</ul>'
