"""The sections about the run itself: header, data, model, files."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from lfm4ads_tf.analysis.markup import (
    DASH,
    breakable,
    count,
    details,
    duration,
    escape,
    plural,
    row,
    size,
    spread,
    table,
)
from lfm4ads_tf.analysis.report_data import ReportData
from lfm4ads_tf.analysis.results import UPSTREAM, Results
from lfm4ads_tf.baselines.registry import BASELINES

_SHOWN = 12  # embedding tables that are listed without a click
_SHOWN_WARNINGS = 4
_TOLD = ("point_in_time", "untimed", "unlearnt", "export_lost")


class Overview:
    """What ran, on what data, with which model, and where its files lie.

    Args:
        data: What the report shows.
        results: Its results.
    """

    def __init__(self, data: ReportData, results: Results) -> None:
        self._data = data
        self._results = results

    def header(self) -> str:
        """Title, versions and the main numbers."""
        data = self._data
        versions = ", ".join(f"{escape(n)} {escape(v)}" for n, v in data.versions.items())
        tiles = "".join(
            f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
            for name, value in self._tiles()
        )
        return (
            f"<h1>{breakable(data.document['spec'])}: foundation-model transfer</h1>"
            f'<p class="soft">Results of {escape(data.made)}. {versions}.</p>'
            f'<div class="tiles">{tiles}</div>'
        )

    def warnings(self) -> str:
        """What a reader must know before believing a number; may be empty."""
        texts = []
        untimed = self._data.document.get("untimed")
        if untimed:
            texts.append(f"The log has no time: its rows {escape(untimed)}.")
        flags = self._data.document["point_in_time"]
        flagged = [name for name, flag in flags.items() if not flag]
        if flagged:
            named = ", ".join(f"<strong>{breakable(s)}</strong>" for s in flagged)
            texts.append(
                f"Not point in time (marked *): {named}. The upstream was trained on rows that "
                "are later than some of these scenarios' validation and test rows. Read their "
                "results, and their part in the results of all scenarios, as upper bounds."
            )
        poor = self._data.document.get("unlearnt", [])
        if poor:
            named = ", ".join(dict.fromkeys(_training(of) for of in poor))
            texts.append(
                f"No better than a constant on validation or test rows: {named}. Their AUC is at "
                "most 0.5 or undefined, or their logloss is not below that of the training rows' "
                "mean label (<code>unlearnt</code> in metrics.json)."
            )
        if len(self._data.seeds) == 1:
            texts.append(
                "One seed was run: deviations between seeds are unknown and no difference can be "
                "tested."
            )
        lost = [e for e in self._data.document.get("exports", []) if e["state"] != "published"]
        for export in lost:
            older = f"; version {export['version']} stays" if export["version"] else ""
            verb = "was refused" if export["state"] == "refused" else "failed"
            texts.append(
                f"The export {breakable(export['model'])} {verb}{older}: {escape(export['reason'])}"
            )
        texts += self._listed()
        with_model = set(self._results.names("scenario", stage="downstream"))
        skipped = [s for s in self._data.scenarios if s["name"] not in with_model]
        if with_model and skipped:
            named = ", ".join(
                f"{breakable(s['name'])} ({count(s['train'])} training rows)" for s in skipped
            )
            texts.append(f"Scenarios without a downstream model: {named}.")
        if not texts:
            return ""
        whole = [t if t.startswith("<") else f"<p>{t}</p>" for t in texts]
        return f'<div class="warning">{"".join(whole)}</div>'

    def _listed(self) -> list[str]:
        """The warnings of `metrics.json` by kind, those apart that `warnings` tells itself."""
        kinds: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for warning in self._data.document.get("warnings", []):
            if warning["kind"] not in _TOLD:
                kinds[warning["kind"]].append(warning)
        texts = []
        for kind, found in kinds.items():
            items = [f"<li>{_place(w)}{_coded(w['message'])}</li>" for w in found]
            shown = f"<ul>{''.join(items[:_SHOWN_WARNINGS])}</ul>"
            if items[_SHOWN_WARNINGS:]:
                more = f"<ul>{''.join(items[_SHOWN_WARNINGS:])}</ul>"
                shown += details(f"{len(items) - _SHOWN_WARNINGS} more", more)
            title = self._data.kinds.get(kind, kind)
            texts.append(f"<h4>{escape(title)}</h4>{shown}")
        return texts

    def data_section(self) -> str:
        """Rows, scenarios with their base rates, periods and features."""
        data = self._data
        tasks = list(dict.fromkeys(t for s in data.scenarios for t in s["rates"]))
        heads = ["scenario", "training rows", "valid rows", "test rows"]
        heads += [f"{t}, {split}" for t in tasks for split in ("training", "test")]
        rows = []
        for scenario in data.scenarios:
            cells = [breakable(scenario["name"])]
            cells += [count(scenario[split]) for split in ("train", "valid", "test")]
            cells += [_percent(rate) for t in tasks for rate in scenario["rates"][t]]
            rows.append(row(cells))
        facts = []
        if data.document["auxiliary_rows"]:
            facts.append(
                f"{count(data.document['auxiliary_rows'])} auxiliary pre-training rows, counted "
                "in no split"
            )
        if data.periods:
            ends = f"{data.periods[0]} to {data.periods[-1]}"
            facts.append(f"{len(data.periods)} periods, {ends}")
        for split, (first, last) in data.spans.items():
            facts.append(f"{split}: {first} to {last}")
        for owner, (embedded, dense) in data.features.items():
            facts.append(
                f"{owner} features: {plural(embedded, 'embedded feature')}, "
                f"{plural(dense, 'dense column')}"
            )
        listed = "".join(f"<li>{escape(fact)}</li>" for fact in facts)
        note = "The columns after the rows are mean labels."
        return f'{table(heads, rows)}<p class="note">{note}</p><ul>{listed}</ul>'

    def model_section(self) -> str:
        """Embedding tables and parameters of the upstream; may be empty."""
        tables = sorted(self._data.tables, key=lambda t: -t["rows"] * t["dim"])
        if not tables:
            return ""
        rows = [
            row(
                [
                    breakable(t["name"]),
                    count(t["rows"]),
                    str(t["dim"]),
                    count(t["rows"] * t["dim"]),
                    size(4 * t["rows"] * t["dim"]),
                ]
            )
            for t in tables
        ]
        weights = sum(t["rows"] * t["dim"] for t in tables)
        total = [count(sum(t["rows"] for t in tables)), "", count(weights), size(4 * weights)]
        shown = [row(["<strong>all tables</strong>", *total]), *rows[:_SHOWN]]
        parameters = "; ".join(
            f"{escape(name)}: {count(n)}" for name, n in self._data.parameters.items()
        )
        said = f"<p>Parameters of the upstream: {parameters}.</p>" if parameters else ""
        note = "<p class='note'>float32; the row kept for a missing id is not counted here.</p>"
        heads = ["table", "rows", "width", "weights", "size"]
        more = table(heads, rows[_SHOWN:])
        smaller = plural(len(rows) - _SHOWN, "smaller table")
        rest = details(smaller, more) if rows[_SHOWN:] else ""
        return f"{said}{table(heads, shown)}{rest}{note}"

    def exports_section(self) -> str:
        """What became of each export; empty before the first."""
        heads = ["export", "state", "version in service", "reason"]
        rows = [
            row(
                [
                    breakable(export["model"]),
                    escape(export["state"]),
                    DASH if export["version"] is None else str(export["version"]),
                    escape(export["reason"]),
                ],
                text_columns=2,
            )
            for export in self._data.document.get("exports", [])
        ]
        return table(heads, rows, text_columns=2) if rows else ""

    def files_section(self) -> str:
        """Where each artefact lies, the configuration, and how to make the run again."""
        rows = [
            row([_link(path), escape(what), size(n)], text_columns=2)
            for path, what, n in self._data.artefacts
        ]
        return (
            "<p>Paths are relative to the folder of this page.</p>"
            f"{table(['path', 'what', 'size'], rows, text_columns=2)}"
            f"<h3>Run it again</h3><pre>{escape(self._data.command)}</pre>"
            + details("Resolved configuration", f"<pre>{escape(self._data.config)}</pre>")
        )

    def _tiles(self) -> list[tuple[str, str]]:
        document, seeds = self._data.document, self._data.seeds
        tiles = []
        for task in self._results.names("task", stage="upstream", scenario="all", split="test")[:3]:
            values = self._results.values("auc", "upstream", "all", task, UPSTREAM)
            tiles.append((f"upstream AUC, {task}, test", spread(values)))
        for task in self._results.names("task", stage="retrieval", scenario="all", split="test"):
            for metric in self._results.metrics("retrieval")[:1]:
                method = self._results.names("method", stage="retrieval")[0]
                values = self._results.values(metric, "retrieval", "all", task, method)
                tiles.append((f"retrieval {metric}, {task}, test", spread(values, 3)))
        named = ", ".join(map(str, seeds)) if len(seeds) < 6 else f"{seeds[0]} to {seeds[-1]}"
        tiles.append((f"{'seed' if len(seeds) == 1 else 'seeds'} ({named})", str(len(seeds))))
        for split, rows in document["rows"].items():
            tiles.append((f"{split} rows", count(rows)))
        rate = document["throughput"].get("train_examples_per_s")
        tiles.append(("upstream training examples a second", DASH if rate is None else count(rate)))
        tiles += [
            (f"{stage} training and scoring, all seeds", duration(s))
            for stage, s in self._wall().items()
        ]
        return tiles

    def _wall(self) -> dict[str, float]:
        """Stage -> seconds of training and scoring, over all models and seeds."""
        models = {}
        for entry in self._data.document["results"]:
            # The upstream's own results and the baselines' are repeated among the downstream's.
            stage = "upstream" if entry["method"] == UPSTREAM else entry["stage"]
            stage = "baseline" if entry["method"] in BASELINES else stage
            scenario = entry["scenario"] if stage == "downstream" else "all"
            models[stage, scenario, entry["method"], entry["seed"]] = entry["wall_s"]
        total: dict[str, float] = defaultdict(float)
        for (stage, *_), seconds in models.items():
            total[stage] += seconds
        return dict(total)


def _link(path: str) -> str:
    return f'<a href="./{escape(quote(path))}"><code>{breakable(path)}</code></a>'


def _percent(rate: float | None) -> str:
    return DASH if rate is None else f"{100 * rate:.2f}%"


def _place(warning: Mapping[str, Any]) -> str:
    """Scenario and task of a warning as the start of a line; empty where it is of neither."""
    scenario = warning["scenario"]
    names = ["all scenarios" if scenario == "all" else scenario, warning["task"]]
    named = ", ".join(breakable(name) for name in names if name is not None)
    return f"<strong>{named}</strong>: " if named else ""


def _coded(message: str) -> str:
    """A message as HTML; what stands in backticks is code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(message))


def _training(of: Mapping[str, Any]) -> str:
    """A trained model and a task, as one entry of `unlearnt` names them."""
    name = of["stage"] if of["stage"] == UPSTREAM else f"{of['scenario']} {of['method']}"
    return f"<strong>{breakable(name)}</strong> ({escape(of['task'])})"
