"""The page of a sweep: a heat map and a table per scenario."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lfm4ads_tf.analysis.heat_map import HeatCell, heat_map
from lfm4ads_tf.analysis.markup import DASH, breakable, count, details, escape, row, table
from lfm4ads_tf.analysis.result_tables import difference
from lfm4ads_tf.analysis.stylesheet import stylesheet
from lfm4ads_tf.analysis.verdict import LEVEL, verdict

_NOTE = (
    "Mean difference in validation AUC to “none”, in AUC points (hundredths), paired by seed. Rows "
    "are the upstream's layers, in order; columns adapters of the feature level, and warm starts "
    "up to the layer. * p < 0.05 alone; ** p < 0.05 after Holm's correction for all "
    "configurations of the map. The frame is the highest mean. Shades are relative to the largest "
    "difference of each map."
)
_ONE_SEED = "One seed allows no paired test: no cell is marked."


def sweep_page(document: Mapping[str, Any]) -> str:
    """The results of a sweep as one HTML document that loads nothing.

    Args:
        document: What `OUT/sweep/results.json` holds.

    Returns:
        The document's text.
    """
    scenarios = list(document["chosen"])
    if len(scenarios) == 2:  # one scenario is also all
        scenarios = scenarios[1:]
    seeds = ", ".join(map(str, document["seeds"]))
    lines = [
        f"{document['configurations']} configurations, {_task(document['ranked_by'])}, seeds "
        f"{seeds}, validation split.",
        f"Chosen for all scenarios: {document['chosen']['all']['method']}",
    ]
    head = "".join(f"<p>{breakable(line)}</p>" for line in lines)
    notes = f'<p class="note">{escape(_NOTE)}</p>'
    if len(document["seeds"]) == 1:
        notes += f'<div class="warning"><p>{escape(_ONE_SEED)}</p></div>'
    body = "".join(_section(document, scenario) for scenario in scenarios)
    name = escape(document["spec"])
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name}: sweep</title><style>{stylesheet()}</style></head>\n"
        f"<body><header><h1>{name}: layers, granularities and adapters</h1>{head}{notes}</header>\n"
        f"<main>{body}</main>\n<footer>Made from sweep/results.json of this run.</footer>"
        "</body></html>\n"
    )


def difference_text(entry: Mapping[str, Any]) -> str:
    """The paired difference of an entry to the baseline, in AUC points."""
    if entry["diff"] is None:
        return "baseline" if entry["level"] == "none" else DASH
    return difference({"diff_mean": entry["diff"], "diff_sd": entry["diff_sd"], "p": entry["p"]})


def _section(document: Mapping[str, Any], scenario: str) -> str:
    """One scenario: map, and a table per task with the ranked one open."""
    ranked_by, chosen = document["ranked_by"], document["chosen"][scenario]
    entries = [e for e in document["results"] if e["scenario"] == scenario]
    of_task = {t: [e for e in entries if e["task"] == t] for t in _names(entries, "task")}
    title = "All scenarios, weighted by rows" if scenario == "all" else f"Scenario {scenario}"
    best = None if chosen is None else chosen["method"]
    figure = _figure(document["layers"], of_task[ranked_by], best, title)
    tables = "".join(
        details(f"All configurations, {_task(t)}", _table(found, best))
        for t, found in sorted(of_task.items(), key=lambda item: item[0] != ranked_by)
    )
    rows = count(document["rows"][scenario])
    return (
        f'<section><h2>{breakable(title)}</h2><p class="note">{rows} validation rows'
        f"</p>{figure}{tables}</section>"
    )


def _figure(
    layers: Sequence[str], entries: Sequence[Mapping[str, Any]], best: str | None, title: str
) -> str:
    """The map of what has a layer, and a list of what has none."""
    placed = [e for e in entries if e["layer"] is not None]
    columns = list(dict.fromkeys(_column(e) for e in placed))
    cells = {(e["layer"], _column(e)): _cell(e, best) for e in placed}
    svg = heat_map(layers, columns, cells, title=f"Differences to none: {title}")
    others = "".join(
        f"<li>{_name(e, best)}: {escape(difference_text(e))}</li>"
        for e in entries
        if e["layer"] is None and e["diff"] is not None
    )
    beside = f"<p>Without a layer, in AUC points:</p><ul>{others}</ul>" if others else ""
    return f'<figure><div class="scroll">{svg}</div>{beside}</figure>'


def _column(entry: Mapping[str, Any]) -> tuple[str, str]:
    """The two lines of the head of an entry's column."""
    if entry["level"] == "module":
        return "module", "warm start"
    side = "both CR" if entry["side"] == "both" else f"CR_{entry['side']}"
    return side, entry["adapter"]


def _cell(entry: Mapping[str, Any], best: str | None) -> HeatCell:
    p, adjusted = entry["p"], entry["p_holm"]
    mark = "" if p is None or p >= LEVEL else "**" if adjusted < LEVEL else "*"
    return HeatCell(
        None if entry["diff"] is None else 100 * entry["diff"],
        mark,
        f"{entry['method']}: {difference_text(entry)}",
        entry["method"] == best,
    )


def _table(entries: Sequence[Mapping[str, Any]], best: str | None) -> str:
    heads = ["method", "rank", "AUC", "to none, AUC points", "p, Holm"]
    rows = []
    for e in sorted(entries, key=lambda e: e["rank"] or len(entries) + 1):
        mean = DASH if e["mean"] is None else f"{e['mean']:.4f}"
        if e["sd"] is not None:
            mean += f" ± {e['sd']:.4f}"
        judged = ""
        if e["diff"] is not None:
            judged = f' class="{verdict({"p": e["p"], "diff_mean": e["diff"]})}"'
        cells = [
            _name(e, best),
            str(e["rank"] or DASH),
            mean,
            f"<span{judged}>{escape(difference_text(e))}</span>",
            DASH if e["p_holm"] is None else f"{e['p_holm']:.3f}",
        ]
        rows.append(row(cells))
    return table(heads, rows)


def _task(name: str) -> str:
    return "mean over tasks" if name == "all" else f"task {name}"


def _name(entry: Mapping[str, Any], best: str | None) -> str:
    """A method's name as HTML, underlined if it is the best."""
    name = breakable(entry["method"])
    return f'<strong class="best">{name}</strong>' if entry["method"] == best else name


def _names(entries: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    """Values of a key, in order of appearance."""
    return list(dict.fromkeys(e[key] for e in entries))
