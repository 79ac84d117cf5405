"""The terminal's view of `metrics.json`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lfm4ads_tf.features.fitted_encoding import ALL
from lfm4ads_tf.pipeline.overall import BASELINES
from lfm4ads_tf.pipeline.summary_table import print_summary
from lfm4ads_tf.pipeline.warning_lines import print_warnings

_METRICS = ("gauc", "logloss", "calibration")


def print_tables(document: dict[str, Any], console: Console) -> None:
    """Prints the test results: mean over seeds, deviation, paired difference to `none`."""
    rows = document["rows"]
    console.print(
        f"\n[bold]{document['spec']}[/bold]: {rows['train']:,} training rows, {rows['valid']:,} "
        f"valid, {rows['test']:,} test"
    )
    upstream = _entries(document, "upstream")
    if upstream:
        first = ("scenario", "task")
        console.print(_ranking(document, upstream, "Upstream", first, differences=False))
    fitted = [e for e in _entries(document, "baseline") if e["scenario"] == ALL]
    if fitted:
        title = "Baselines, all rows"
        console.print(_ranking(document, fitted, title, ("method", "task"), differences=False))
    downstream = _entries(document, "downstream")
    for (scenario,), entries in _grouped(downstream, "scenario").items():
        title = f"Downstream, scenario {scenario}"
        console.print(_ranking(document, entries, title, ("method", "task"), differences=True))
    _print_overall(document["overall"], console)
    _print_retrieval(document, console)
    _print_point_in_time(document["point_in_time"], console)
    if "untimed" in document:
        console.print(f"[yellow]The log has no time:[/yellow] its rows {document['untimed']}.")
    if "full" in document:
        console.print(f"full: {escape(document['full'])}")
    print_warnings(document, console)
    print_summary(document.get("summary", []), console)


def _print_point_in_time(flags: dict[str, bool], console: Console) -> None:
    """Says which scenarios' results are point in time where not all are."""
    later = [s for s, honest in flags.items() if not honest]
    if not later:
        return
    names = ", ".join(escape(s) for s in later)
    console.print(
        f"[yellow]* not point in time: {names}.[/yellow] Training rows are later than some of "
        "their valid and test rows."
    )
    honest = ", ".join(escape(s) for s in flags if s not in later)
    if honest:
        console.print(
            f"Point in time: {names} -> {honest}. All that the tables of {honest} rest on is older "
            "than their valid and test rows."
        )


def _entries(document: dict[str, Any], stage: str) -> list[dict[str, Any]]:
    """Entries of one stage over all test rows."""
    return [
        e
        for e in document["results"]
        if e["stage"] == stage and e["split"] == "test" and e["slice"] == "all"
    ]


def _ranking(
    document: dict[str, Any],
    entries: list[dict[str, Any]],
    title: str,
    first: tuple[str, str],
    *,
    differences: bool,
) -> Table:
    """A table of ranking metrics whose first two columns are keys of the entries."""
    compared = {
        (c["scenario"], c["task"], c["method"]): c
        for c in document["comparisons"]
        if c["split"] == "test" and c["slice"] == "all" and c["baseline"] == BASELINES[0]
    }
    with_best = any(e["metrics"].get("auc_best_possible") is not None for e in entries)
    heads = ["rows", "positives", "AUC"]
    heads += ["best possible"] if with_best else []
    heads += ["to none, AUC points"] if differences else []
    heads += ["AUC daily", "GAUC", "logloss", "calibration"]
    table = Table(title=escape(f"{title}, test split"), title_justify="left")
    for head in first:
        wide = 24 if head == "method" else None
        table.add_column(head, overflow="fold", min_width=wide, no_wrap=head == "task")
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for (one, two, scenario), group in _grouped(entries, *first, "scenario").items():
        frozen = [e for e in group if e["refresh"] == "frozen"]
        daily = [e for e in group if e["refresh"] == "daily"]
        flags = document["point_in_time"]  # "all" holds where every scenario's does
        honest = flags.get(scenario, all(flags.values()))
        flag = "" if honest or first[0] != "scenario" else " *"
        cells = [escape(one) + flag, escape(two), f"{frozen[0]['rows']:,}", _positives(frozen[0])]
        cells.append(_spread(e["metrics"]["auc"] for e in frozen))
        if with_best:
            cells.append(_mean(e["metrics"].get("auc_best_possible") for e in frozen))
        if differences:
            key = (scenario, frozen[0]["task"], frozen[0]["method"])
            cells.append(_difference(compared.get(key)))
        cells.append(_spread(e["metrics"]["auc"] for e in daily))
        cells += [_mean(e["metrics"][m] for e in frozen) for m in _METRICS]
        table.add_row(*cells)
    return table


def _print_overall(overall: list[dict[str, Any]], console: Console) -> None:
    """Means over scenarios, where there are several."""
    test = [e for e in overall if e["split"] == "test" and len(e["scenarios"]) > 1]
    for (task, refresh), entries in _grouped(test, "task", "refresh").items():
        title = (
            f"Mean AUC over {len(entries[0]['scenarios'])} scenarios weighted by rows, {task}, "
            f"{refresh}, test split ({entries[0]['rows']:,} rows{_of(entries[0])})"
        )
        table = Table(title=escape(title), title_justify="left")
        table.add_column("method", overflow="fold", min_width=24)
        for head in ("AUC", *(f"to {b}, points" for b in BASELINES)):
            table.add_column(head, justify="right")
        for entry in entries:
            spread = "" if entry["sd"] is None else f" ± {entry['sd']:.4f}"
            differences = [_difference(entry["to"].get(b)) for b in BASELINES]
            table.add_row(escape(entry["method"]), f"{entry['mean']:.4f}{spread}", *differences)
        console.print(table)


def _print_retrieval(document: dict[str, Any], console: Console) -> None:
    entries = _entries(document, "retrieval")
    if not entries:
        return
    table = Table(title="Retrieval, test split", title_justify="left")
    for head in ("scenario", "task", "method"):
        table.add_column(head)
    for head in ("users", "positives", *entries[0]["metrics"]):
        table.add_column(head, justify="right")
    for (scenario, task, method), group in _grouped(entries, "scenario", "task", "method").items():
        values = [_spread(e["metrics"][m] for e in group) for m in entries[0]["metrics"]]
        names = [escape(name) for name in (scenario, task, method)]
        table.add_row(*names, f"{group[0]['rows']:,}", _positives(group[0]), *values)
    console.print(table)


def _grouped(
    entries: list[dict[str, Any]], *keys: str
) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for entry in entries:
        groups[tuple(entry[k] for k in keys)].append(entry)
    return groups


def _positives(entry: dict[str, Any]) -> str:
    """Positives of an entry; an earlier version did not count them."""
    return f"{entry['positives']:,}" if entry.get("positives") is not None else "–"


def _of(entry: dict[str, Any]) -> str:
    """The positives among an overall entry's rows, where they were counted."""
    known = entry.get("positives")
    return "" if known is None else f", {known:,} positives"


def _spread(values: Iterable[float | None]) -> str:
    """`mean ± sd` over seeds, `mean` for one seed, a dash where undefined."""
    known = [v for v in values if v is not None]
    if not known:
        return "–"
    if len(known) == 1:
        return f"{known[0]:.4f}"
    return f"{np.mean(known):.4f} ± {np.std(known, ddof=1):.4f}"


def _mean(values: Iterable[float | None]) -> str:
    """`mean` over seeds, a dash where undefined."""
    known = [v for v in values if v is not None]
    return f"{np.mean(known):.4f}" if known else "–"


def _difference(comparison: dict[str, Any] | None) -> str:
    """Paired difference to `none` in AUC points (hundredths)."""
    if comparison is None or comparison["diff_mean"] is None:
        return ""
    text = f"{100 * comparison['diff_mean']:+.2f}"
    if comparison["diff_sd"] is not None:
        text += f" ± {100 * comparison['diff_sd']:.2f} (p {comparison['p']:.2f})"
    return text
