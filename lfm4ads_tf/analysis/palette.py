"""Colours of methods and tasks: told apart without colour vision, in light and in dark."""

from __future__ import annotations

from collections.abc import Sequence

from lfm4ads_tf.analysis.results import BASELINE, UPSTREAM

# Light theme, dark theme. The hues keep apart for the common colour-vision deficiencies, their
# lightness too; contrast to the page is at least 3:1.
_PAIRS = (
    ("#0072b2", "#4ba3e3"),
    ("#c4500a", "#f08a45"),
    ("#008060", "#34c79c"),
    ("#a0488c", "#df92cc"),
    ("#8a6d00", "#e3bd3c"),
    ("#3d3da8", "#a3a3ff"),
    ("#7a2230", "#ff8f9c"),
)
_DASHES = ("-", "--", ":", "-.")
_NEUTRAL = {BASELINE: ("#8a93a1", "#7d8794"), UPSTREAM: ("#3d4757", "#cfd5de")}


class Palette:
    """One colour and one line style per name.

    Colours repeat after seven names, with another line style.

    Args:
        names: Names in the order of the page; `none` and `upstream` are light and dark grey.
    """

    def __init__(self, names: Sequence[str]) -> None:
        coloured = [n for n in names if n not in _NEUTRAL]
        self._colour = {n: f"c{k % len(_PAIRS)}" for k, n in enumerate(coloured)}
        self._dash = {n: _DASHES[k // len(_PAIRS) % len(_DASHES)] for k, n in enumerate(coloured)}

    def variable(self, name: str) -> str:
        """The CSS value of a name's colour."""
        return f"var(--{name if name in _NEUTRAL else self._colour[name]})"

    def dash(self, name: str) -> str:
        """The line style of a name."""
        return self._dash.get(name, "-")

    @staticmethod
    def declarations(dark: bool) -> str:
        """The CSS custom properties of a theme."""
        pairs = {f"c{k}": pair for k, pair in enumerate(_PAIRS)} | _NEUTRAL
        return "".join(f"--{name}:{pair[dark]};" for name, pair in pairs.items())
