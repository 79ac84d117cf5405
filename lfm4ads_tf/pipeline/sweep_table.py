"""The terminal's view of a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lfm4ads_tf.analysis.sweep_page import difference_text

_SHOWN = 10


def print_sweep(document: Mapping[str, Any], console: Console) -> None:
    """Prints the best configurations per scenario, those without a layer, and the choice."""
    ranked_by, seeds = document["ranked_by"], document["seeds"]
    count = document["configurations"]
    task = "mean over tasks" if ranked_by == "all" else ranked_by
    console.print(
        f"\n[bold]{escape(document['spec'])}[/bold]: {count} configurations compared with "
        f"{document['baseline']} on the validation split, AUC ({escape(task)}), "
        f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}; p Holm is adjusted for {count} tests"
    )
    if len(seeds) == 1:
        console.print("[yellow]One seed allows no paired test: use --seeds 3 or more.[/yellow]")
    single = len(document["chosen"]) == 2  # one scenario is also all
    for scenario in document["chosen"]:
        if scenario != "all" or not single:
            console.print(_table(document, scenario))
    chosen = document["chosen"]["all"]
    near = chosen["not_told_apart"]
    text = (
        ""
        if near is None
        else f" (not told apart from it, p >= 0.05: {len(near)} of {count} others)"
    )
    console.print(f"chosen for all scenarios: [bold]{escape(chosen['method'])}[/bold]{text}")
    entry = next(
        e
        for e in document["results"]
        if (e["scenario"], e["task"], e["method"]) == ("all", ranked_by, chosen["method"])
    )
    if entry["diff"] is not None and entry["diff"] <= 0:
        console.print("[yellow]It is not above none: no transfer helps here.[/yellow]")


def _table(document: Mapping[str, Any], scenario: str) -> Table:
    """The best rows by rank, and those without a layer wherever they stand."""
    entries = [
        e
        for e in document["results"]
        if e["scenario"] == scenario and e["task"] == document["ranked_by"]
    ]
    entries.sort(key=lambda e: e["rank"] or len(entries) + 1)
    shown = [e for k, e in enumerate(entries) if k < _SHOWN or e["layer"] is None]
    title = "All scenarios, weighted by rows" if scenario == "all" else f"Scenario {scenario}"
    hidden = len(entries) - len(shown)
    table = Table(
        title=escape(f"{title}: {document['rows'][scenario]:,} validation rows"),
        title_justify="left",
        caption=f"and {hidden} more in sweep.html" if hidden else None,
        caption_justify="left",
    )
    table.add_column("rank", justify="right")
    table.add_column("method", overflow="fold", min_width=24)
    for head in ("AUC", "to none, AUC points", "p Holm"):
        table.add_column(head, justify="right", no_wrap=True)
    chosen = document["chosen"][scenario]
    for e in shown:
        best = chosen is not None and e["method"] == chosen["method"]
        table.add_row(
            str(e["rank"] or "–"),
            escape(e["method"]),
            _mean_text(e),
            difference_text(e),
            _p_text(e, len(document["seeds"])),
            style="bold" if best else None,
        )
    return table


def _mean_text(entry: Mapping[str, Any]) -> str:
    """`mean ± sd`, a dash where undefined."""
    if entry["mean"] is None:
        return "–"
    return f"{entry['mean']:.4f}" + (f" ± {entry['sd']:.4f}" if entry["sd"] is not None else "")


def _p_text(entry: Mapping[str, Any], seeds: int) -> str:
    if entry["diff"] is None:
        return ""
    if entry["p_holm"] is None:
        return "no test" if seeds == 1 else "–"
    return f"{entry['p_holm']:.3f}"
