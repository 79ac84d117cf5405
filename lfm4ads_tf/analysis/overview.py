"""The sections about the run itself: header, data, model, files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from lfm4ads_tf.analysis.markup import (
    DASH,
    PARTS,
    breakable,
    coded,
    count,
    duration,
    macros,
    size,
    spread,
)
from lfm4ads_tf.analysis.report_data import ReportData
from lfm4ads_tf.analysis.results import UPSTREAM, Results
from lfm4ads_tf.baselines.registry import BASELINES

_SHOWN = 12  # embedding tables that are listed without a click
_SHOWN_WARNINGS = 4
_TOLD = ("point_in_time", "untimed", "unlearnt", "export_lost")
_MACROS = macros("overview.html")


class Overview:
    """What ran, on what data, with which model, and where its files lie.

    Args:
        data: What the report shows.
        results: Its results.

    Attributes:
        data: As given.
    """

    def __init__(self, data: ReportData, results: Results) -> None:
        self.data = data
        self._results = results

    def header(self) -> Markup:
        """Title, versions and the main numbers."""
        return _MACROS.header(self.data, self._tiles())

    def warnings(self) -> Markup:
        """What a reader must know before believing a number; may be empty."""
        kinds: dict[str, list[Markup]] = defaultdict(list)
        for warning in self.data.document.get("warnings", []):
            if warning["kind"] not in _TOLD:
                title = self.data.kinds.get(warning["kind"], warning["kind"])
                kinds[title].append(_line(warning))
        with_model = self._results.names("scenario", stage="downstream")
        poor = dict.fromkeys(_training(of) for of in self.data.document.get("unlearnt", []))
        return _MACROS.warnings(self.data, poor, kinds, with_model, _SHOWN_WARNINGS)

    def sections(self) -> list[tuple[str, str, Markup]]:
        """(anchor, title, content) of data, model, exports and files; content may be empty."""
        return [
            ("data", "Data", self._data_section()),
            ("model", "Embedding tables", self._model_section()),
            ("exports", "Exports", self._exports_section()),
            ("files", "Files", self._files_section()),
        ]

    def _data_section(self) -> Markup:
        """Rows, scenarios with their base rates, periods and features."""
        tasks = list(dict.fromkeys(t for s in self.data.scenarios for t in s["rates"]))
        heads = ["scenario", "training rows", "valid rows", "test rows"]
        heads += [f"{t}, {split}" for t in tasks for split in ("training", "test")]
        rows = []
        for scenario in self.data.scenarios:
            cells: list[str] = [breakable(scenario["name"])]
            cells += [count(scenario[split]) for split in ("train", "valid", "test")]
            cells += [_percent(rate) for t in tasks for rate in scenario["rates"][t]]
            rows.append(cells)
        return PARTS.table(heads, rows) + _MACROS.facts(self.data)

    def _model_section(self) -> Markup:
        """Embedding tables and parameters of the upstream; may be empty."""
        tables = sorted(self.data.tables, key=lambda t: -t["rows"] * t["dim"])
        rows = [
            [breakable(t["name"]), count(t["rows"]), str(t["dim"]), *_weights(t["rows"] * t["dim"])]
            for t in tables
        ]
        weights = sum(t["rows"] * t["dim"] for t in tables)
        name = Markup("<strong>all tables</strong>")
        total = [name, count(sum(t["rows"] for t in tables)), "", *_weights(weights)]
        return _MACROS.model(total, rows, self.data.parameters, _SHOWN)

    def _exports_section(self) -> Markup:
        """What became of each export; empty before the first."""
        heads = ["export", "state", "version in service", "reason"]
        rows = [
            [breakable(e["model"]), e["state"], str(e["version"] or DASH), e["reason"]]
            for e in self.data.document.get("exports", [])
        ]
        return PARTS.table(heads, rows, 2)

    def _files_section(self) -> Markup:
        """Where each artefact lies, the configuration, and how to make the run again."""
        link = Markup('<a href="./{}"><code>{}</code></a>')
        rows = [
            [link.format(quote(path), breakable(path)), what, size(n)]
            for path, what, n in self.data.artefacts
        ]
        return _MACROS.files(rows, self.data)

    def _tiles(self) -> list[tuple[str, str]]:
        document, seeds = self.data.document, self.data.seeds
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
        for entry in self.data.document["results"]:
            # The upstream's own results and the baselines' are repeated among the downstream's.
            stage = "upstream" if entry["method"] == UPSTREAM else entry["stage"]
            stage = "baseline" if entry["method"] in BASELINES else stage
            scenario = entry["scenario"] if stage == "downstream" else "all"
            models[stage, scenario, entry["method"], entry["seed"]] = entry["wall_s"]
        total: dict[str, float] = defaultdict(float)
        for (stage, *_), seconds in models.items():
            total[stage] += seconds
        return dict(total)


def _training(of: Mapping[str, Any]) -> tuple[str, str]:
    """A trained model and a task, as one entry of `unlearnt` names them."""
    name = of["stage"] if of["stage"] == UPSTREAM else f"{of['scenario']} {of['method']}"
    return name, of["task"]


def _line(warning: Mapping[str, Any]) -> Markup:
    """A warning as HTML, behind the names of its scenario and task where it has any."""
    scenario = warning["scenario"]
    names = ["all scenarios" if scenario == "all" else scenario, warning["task"]]
    named = Markup(", ").join(breakable(name) for name in names if name is not None)
    place = Markup("<strong>{}</strong>: ").format(named) if named else Markup()
    return place + coded(warning["message"])


def _percent(rate: float | None) -> str:
    return DASH if rate is None else f"{100 * rate:.2f}%"


def _weights(number: int) -> list[str]:
    """The cells of a number of float32 weights."""
    return [count(number), size(4 * number)]
