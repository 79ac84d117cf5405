"""Information abundance of a model's embedding tables, as a table of a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from lfm4ads_tf.analysis.markup import DASH, PARTS, breakable, count, plural, spread

_SHOWN = 12  # tables that are listed without a click

ABUNDANCE_NOTE = (
    "Information abundance of the embeddings that training has read: the sum of a table's singular "
    "values over the largest one, mean ± deviation over seeds, of the most that it can be, "
    "min(rows, width). It tells how many directions of its width a table uses: near that number, "
    "all of them alike; near 1, it has collapsed to a line and its width is wasted. “Joined” are "
    "all sets side by side. A dash: rows of zeros alone. More in docs/evaluation.md, “Information "
    "abundance”."
)


def abundance_table(trainings: Sequence[Sequence[Mapping[str, Any]]]) -> Markup:
    """A row per table, the largest first, and a column per set.

    Args:
        trainings: `abundance` of each seed's `results.json`; seeds that have none are left out.

    Returns:
        The table; empty where no seed has one.
    """
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for entries in trainings:
        for entry in entries:
            found.setdefault((entry["layer"], entry["table"]), []).append(entry)
    layers = {layer for layer, _ in found}
    sets = max((len(entries[0]["sets"]) for entries in found.values()), default=0)
    rows = []
    by_size = sorted(found.items(), key=lambda item: -item[1][0]["rows"] * item[1][0]["width"])
    for (layer, table), entries in by_size:
        first = entries[0]
        few, width = first["rows"], first["width"]
        columns = [[e["sets"][k] for e in entries] for k in range(len(first["sets"]))]
        cells: list[str] = [breakable(table if len(layers) == 1 else f"{layer}/{table}")]
        cells += [Markup(", ").join(breakable(name) for name in first["fields"])]
        cells += [count(few), str(width)]
        cells += [_of(values, min(few, width)) for values in columns]
        cells += [""] * (sets - len(columns))
        if sets > 1:
            cells.append(_of([e["joined"] for e in entries], min(few, width * len(columns))))
        rows.append(cells)
    heads = ["table", "read by", "rows seen", "width"]
    heads += ["abundance"] if sets == 1 else [*(f"set {k}" for k in range(sets)), "joined"]
    shown = PARTS.table(heads, rows[:_SHOWN], 2)
    more = rows[_SHOWN:]
    if more:
        summary = plural(len(more), "smaller table")
        shown += PARTS.details(summary, PARTS.table(heads, more, 2))
    return Markup(shown)


def _of(values: Sequence[float | None], most: int) -> str:
    """Values over seeds and the most that they can be."""
    text = spread(values, 2)
    return text if text == DASH else f"{text} of {count(most)}"
