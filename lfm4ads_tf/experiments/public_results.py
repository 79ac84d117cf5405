"""PublicResults of the experiment: `metrics.json` and a Markdown table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lfm4ads_tf.experiments.public_method import METHODS, RETRIEVER, VANILLA, PublicMethod, Usage
from lfm4ads_tf.experiments.schedule import MetricsEntry
from lfm4ads_tf.files import write_json, write_text
from lfm4ads_tf.metrics import paired_comparison

SCHEMA = 1
MEAN = "mean"  # of the tabs, weighted by their test rows; a scenario's name in comparisons
_BASELINES = (VANILLA, RETRIEVER)
_UPSTREAM = PublicMethod("upstream itself", "upstream", "feature")
_TITLES: dict[Usage, str] = {
    "feature": "Feature level",
    "module": "Module level",
    "model": "Model level",
}


class PublicResults:
    """Test AUC of every method, tab and trial.

    Args:
        entries: Entries of `metrics.json`.
        weights: Tab -> test rows, in the order of the tables.
    """

    def __init__(self, entries: Sequence[MetricsEntry], weights: Mapping[str, int]) -> None:
        self.tabs = list(weights)
        self._weights = np.array(list(weights.values()), float)
        self._entries = list(entries)
        self._auc: dict[tuple[str, str], dict[int, float | None]] = defaultdict(dict)
        for entry in entries:
            if entry["split"] == "test":
                where = (entry["method"], entry["scenario"])
                self._auc[where][entry["seed"]] = entry["metrics"]["auc"]
        for method in {name for name, _ in self._auc}:
            self._auc[method, MEAN] = self._means(method)

    def values(self, method: str, scenario: str) -> Mapping[int, float | None]:
        """Seed -> test AUC of a method in a tab, in `all` (upstream) or in the `mean`."""
        return self._auc.get((method, scenario), {})

    def spread(self, method: str, scenario: str) -> tuple[float, float | None] | None:
        """Mean and deviation over trials; the latter None for one; None where undefined."""
        known = [v for v in self.values(method, scenario).values() if v is not None]
        if not known:
            return None
        return float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else None

    def comparisons(self) -> list[dict[str, Any]]:
        """Differences to Vanilla and to Retriever, paired by seed."""
        comparisons = []
        for method in METHODS:
            for baseline in _BASELINES:
                if method.name == baseline or (baseline == RETRIEVER and method.usage != "model"):
                    continue
                for scenario in (*self.tabs, MEAN):
                    paired = paired_comparison(
                        self.values(method.name, scenario), self.values(baseline, scenario)
                    )
                    if paired.seeds:
                        identity = {"scenario": scenario, "task": self._entries[0]["task"]}
                        identity |= {"slice": "all", "method": method.name, "label": method.label}
                        identity |= {"baseline": baseline, "split": "test"}
                        comparisons.append({**identity, **vars(paired)})
        return comparisons

    def document(self, **head: Any) -> dict[str, Any]:
        """What `metrics.json` holds.

        Args:
            head: Further keys, such as the schedule's name.
        """
        labels = {method.name: method.label for method in METHODS}
        results = [{**e, "label": labels.get(e["method"], e["method"])} for e in self._entries]
        return {
            "schema": SCHEMA,
            **head,
            "results": results,
            "comparisons": self.comparisons(),
        }

    def markdown(self, *, schedule: str, trials: int, rows: Mapping[str, int]) -> str:
        """One table per usage: AUC, and the difference to Vanilla in AUC points."""
        counts = ", ".join(f"{split} {count:,}" for split, count in rows.items())
        whole = _auc(self.spread("upstream", "all"))
        lines = [
            "# The LFM4Ads public experiment on KuaiRand",
            "",
            f"Schedule `{schedule}`, trials: {trials}, rows: {counts}. Test AUC of the upstream "
            f"over all tabs: {whole}.",
            "",
        ]
        lines += [
            "Test AUC, mean ± deviation over trials; in brackets the difference to Vanilla in AUC "
            "points (hundredths). The last column is the mean over tabs, weighted by test rows.",
        ]
        for usage, title in _TITLES.items():
            methods = [m for m in METHODS if m.usage == usage and self._has(m)]
            if methods:
                lines += ["", f"## {title}", "", *self._table(usage, methods)]
        return "\n".join(lines) + "\n"

    def write(self, out: Path, *, schedule: str, trials: int, rows: Mapping[str, int]) -> None:
        """Writes `metrics.json` and `results.md`."""
        document = self.document(schedule=schedule, trials=trials, rows=rows)
        write_json(out / "metrics.json", document)
        text = self.markdown(schedule=schedule, trials=trials, rows=rows)
        write_text(out / "results.md", text)

    def _table(self, usage: Usage, methods: Sequence[PublicMethod]) -> list[str]:
        heads = ["method", *[f"tab {tab}" for tab in self.tabs], "weighted mean"]
        if usage == "model":
            heads.append("to Retriever")
        lines = [_row(heads), _row(["---"] + ["---:"] * (len(heads) - 1))]
        for method in (_UPSTREAM, *methods) if usage == "feature" else methods:
            cells = [method.label]
            for scenario in (*self.tabs, MEAN):
                text = _auc(self.spread(method.name, scenario))
                if method.name != VANILLA:
                    text += self._difference(method.name, VANILLA, scenario, " ({})")
                cells.append(text)
            if usage == "model":
                cells.append(
                    "" if method.name == RETRIEVER
                    else self._difference(method.name, RETRIEVER, MEAN, "{}")
                )  # fmt: skip
            lines.append(_row(cells))
        return lines

    def _difference(self, method: str, baseline: str, scenario: str, form: str) -> str:
        """Paired difference in AUC points, empty where there is none."""
        paired = paired_comparison(self.values(method, scenario), self.values(baseline, scenario))
        if paired.diff_mean is None:
            return ""
        text = f"{100 * paired.diff_mean:+.2f}"
        if paired.diff_sd is not None:
            text += f" ± {100 * paired.diff_sd:.2f}"
        return form.format(text)

    def _has(self, method: PublicMethod) -> bool:
        return any(self.values(method.name, tab) for tab in self.tabs)

    def _means(self, method: str) -> dict[int, float | None]:
        """Seed -> weighted mean over the tabs, None unless every tab has a value."""
        means: dict[int, float | None] = {}
        for seed in {s for tab in self.tabs for s in self._auc.get((method, tab), {})}:
            values = [self._auc.get((method, tab), {}).get(seed) for tab in self.tabs]
            whole = all(v is not None for v in values)
            means[seed] = (
                float(np.average(np.array(values, float), weights=self._weights)) if whole else None
            )
        return means


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _auc(spread: tuple[float, float | None] | None) -> str:
    if spread is None:
        return "–"
    mean, deviation = spread
    return f"{mean:.4f}" if deviation is None else f"{mean:.4f} ± {deviation:.4f}"
