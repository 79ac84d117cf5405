"""The page of a sweep: a heat map and a table per scenario."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from lfm4ads_tf.analysis.heat_map import HeatCell, heat_map
from lfm4ads_tf.analysis.markup import DASH, PARTS, breakable, page
from lfm4ads_tf.analysis.result_tables import difference
from lfm4ads_tf.analysis.stylesheet import stylesheet
from lfm4ads_tf.analysis.verdict import LEVEL, verdict


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
    sections = [_section(document, scenario) for scenario in scenarios]
    return page("sweep.html", sweep=document, sections=sections, style=stylesheet())


def difference_text(entry: Mapping[str, Any]) -> str:
    """The paired difference of an entry to the baseline, in AUC points."""
    if entry["diff"] is None:
        return "baseline" if entry["level"] == "none" else DASH
    return difference({"diff_mean": entry["diff"], "diff_sd": entry["diff_sd"], "p": entry["p"]})


def _section(document: Mapping[str, Any], scenario: str) -> dict[str, Any]:
    """One scenario: map, what has no layer, and a table per task, the ranked one first."""
    ranked_by, chosen = document["ranked_by"], document["chosen"][scenario]
    entries = [e for e in document["results"] if e["scenario"] == scenario]
    of_task = {t: [e for e in entries if e["task"] == t] for t in _names(entries, "task")}
    title = "All scenarios, weighted by rows" if scenario == "all" else f"Scenario {scenario}"
    best = None if chosen is None else chosen["method"]
    ranked = of_task[ranked_by]
    placed = [e for e in ranked if e["layer"] is not None]
    columns = list(dict.fromkeys(_column(e) for e in placed))
    cells = {(e["layer"], _column(e)): _cell(e, best) for e in placed}
    return {
        "title": title,
        "rows": document["rows"][scenario],
        "map": heat_map(document["layers"], columns, cells, title=f"Differences to none: {title}"),
        "others": [
            Markup("{}: {}").format(_name(e, best), difference_text(e))
            for e in ranked
            if e["layer"] is None and e["diff"] is not None
        ],
        "tables": {
            t: _table(found, best)
            for t, found in sorted(of_task.items(), key=lambda item: item[0] != ranked_by)
        },
    }


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


def _table(entries: Sequence[Mapping[str, Any]], best: str | None) -> Markup:
    heads = ["method", "rank", "AUC", "to none, AUC points", "p, Holm"]
    rows = []
    for e in sorted(entries, key=lambda e: e["rank"] or len(entries) + 1):
        mean = DASH if e["mean"] is None else f"{e['mean']:.4f}"
        if e["sd"] is not None:
            mean += f" ± {e['sd']:.4f}"
        judged = None
        if e["diff"] is not None:
            judged = verdict({"p": e["p"], "diff_mean": e["diff"]})
        to_none = PARTS.judged(difference_text(e), judged)
        holm = DASH if e["p_holm"] is None else f"{e['p_holm']:.3f}"
        rows.append([_name(e, best), str(e["rank"] or DASH), mean, to_none, holm])
    return PARTS.table(heads, rows)


def _name(entry: Mapping[str, Any], best: str | None) -> Markup:
    """A method's name as HTML, underlined if it is the best."""
    return PARTS.marked(breakable(entry["method"]), entry["method"] == best)


def _names(entries: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    """Values of a key, in order of appearance."""
    return list(dict.fromkeys(e[key] for e in entries))
