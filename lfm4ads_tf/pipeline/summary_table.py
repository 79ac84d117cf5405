"""The terminal's view of the summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lfm4ads_tf.features.fitted_encoding import ALL

_METHOD = 30  # characters of a method before it goes on in the next line


def print_summary(entries: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Prints what `summary` gave, at most 100 columns wide; nothing where it gave nothing."""
    if not entries:
        return
    table = Table(
        title=escape(_title(entries)), title_justify="left", width=min(console.width, 100)
    )
    table.add_column("task", no_wrap=True)
    table.add_column("method", overflow="fold", max_width=_METHOD)
    for head in ("AUC", "AUC daily"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("to LightGBM, points [95 %]", justify="right", no_wrap=True)
    task = None
    for entry in entries:
        if task not in (None, entry["task"]):
            table.add_section()
        first, task = task != entry["task"], entry["task"]
        daily = entry["auc_daily"]
        table.add_row(
            escape(task) if first else "",
            escape(entry["method"]),
            f"{entry['auc']:.4f}",
            "–" if daily is None else f"{daily:.4f}",
            _interval(entry["to_lightgbm"]),
        )
    console.print(table)


def _title(entries: Sequence[Mapping[str, Any]]) -> str:
    """What the numbers are of."""
    names, rows = entries[0]["scenarios"], max(e["rows"] for e in entries)
    seeds = max(e["seeds"] for e in entries)
    where = f"mean over {len(names)} scenarios weighted by rows"
    if len(names) == 1:
        where = "all rows" if names[0] == ALL else f"scenario {names[0]}"
    counted = f", mean of {seeds} seeds" if seeds > 1 else ""
    return f"Summary: test AUC, {where}, {rows:,} rows{counted}"


def _interval(difference: Mapping[str, float] | None) -> str:
    """Difference and interval in AUC points (hundredths); empty for LightGBM itself."""
    if difference is None:
        return ""
    value, low, high = (100 * difference[key] for key in ("difference", "low", "high"))
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"
