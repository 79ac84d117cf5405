"""The results of `metrics.json` by what they are results of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lfm4ads_tf.baselines.light_gbm import LightGBM
from lfm4ads_tf.baselines.registry import BASELINES

BASELINE = "none"
UPSTREAM = "upstream"
TREES = LightGBM.name
MIN_ROWS, MIN_LABELS = 100, 20
"""Rows, and positives and negatives each, below which a result is listed and not drawn."""
_Key = tuple[str, ...]


class Results:
    """Looks results up.

    Args:
        document: The content of `metrics.json`.
        scenarios: Scenarios in the order of the page.
        methods: Methods in the order of the page; others follow.
    """

    def __init__(
        self, document: Mapping[str, Any], scenarios: Sequence[str], methods: Sequence[str]
    ) -> None:
        self._entries: dict[_Key, list[Mapping[str, Any]]] = defaultdict(list)
        for entry in sorted(document["results"], key=lambda e: e["seed"]):
            self._entries[_key(**entry)].append(entry)
        self._comparisons = {
            (c["scenario"], c["task"], c["method"], c["slice"], c["split"]): c
            for c in document["comparisons"]
            if c["baseline"] != TREES
        }
        found = document["results"]
        self._order = {
            "scenario": _ordered((e["scenario"] for e in found), ["all", *scenarios]),
            "method": _ordered((e["method"] for e in found), [UPSTREAM, BASELINE, *methods]),
            "task": _ordered((e["task"] for e in found), []),
            "slice": _ordered((e["slice"] for e in found), ["all"]),
        }

    def names(self, kind: str, **chosen: str) -> list[str]:
        """Scenarios, tasks, methods or slices of the results that match, in the page's order."""
        present = {
            e[kind]
            for entries in self._entries.values()
            for e in entries
            if all(e[k] == v for k, v in chosen.items())
        }
        return [name for name in self._order[kind] if name in present]

    def entries(
        self,
        stage: str,
        scenario: str,
        task: str,
        method: str,
        *,
        slice_name: str = "all",
        split: str = "test",
        refresh: str = "frozen",
    ) -> list[Mapping[str, Any]]:
        """One entry per seed."""
        return self._entries.get((stage, scenario, task, method, slice_name, split, refresh), [])

    def values(self, metric: str, *identity: str, **chosen: str) -> list[float]:
        """The defined values of a metric over seeds; arguments as of `entries`."""
        found = [e["metrics"].get(metric) for e in self.entries(*identity, **chosen)]
        return [v for v in found if v is not None]

    def metrics(self, stage: str) -> list[str]:
        """Names of the metrics of a stage."""
        return list(
            dict.fromkeys(
                name
                for entries in self._entries.values()
                for e in entries
                if e["stage"] == stage
                for name in e["metrics"]
            )
        )

    def rows(self, *identity: str, **chosen: str) -> int | None:
        """Rows behind an entry; arguments as of `entries`."""
        found = self.entries(*identity, **chosen)
        return found[0]["rows"] if found else None

    def positives(self, *identity: str, **chosen: str) -> int | None:
        """Positives behind an entry, None where they were not counted; arguments as of `rows`."""
        found = self.entries(*identity, **chosen)
        return found[0].get("positives") if found else None

    def is_small(self, *identity: str, **chosen: str) -> bool:
        """Whether an entry rests on too few rows, positives or negatives to be drawn."""
        rows, positives = self.rows(*identity, **chosen) or 0, self.positives(*identity, **chosen)
        if positives is not None and min(positives, rows - positives) < MIN_LABELS:
            return True
        return rows < MIN_ROWS

    def comparison(
        self, scenario: str, task: str, method: str, slice_name: str = "all", split: str = "test"
    ) -> Mapping[str, Any] | None:
        """Paired difference in AUC to `none`, None when there is none or it is undefined."""
        found = self._comparisons.get((scenario, task, method, slice_name, split))
        return None if found is None or found["diff_mean"] is None else found

    def chosen_method(self, scenario: str) -> str | None:
        """The transfer method with the best validation AUC, see `validation`.

        The choice never looks at the test rows, so that its test result is no best of many.
        """
        scores = self.validation(scenario)
        transfers = {m: v for m, v in scores.items() if m != BASELINE}
        return max(transfers, key=lambda m: transfers[m]) if transfers else None

    def validation(self, scenario: str) -> dict[str, float]:
        """Downstream method -> validation AUC, mean over tasks and seeds, where it is defined."""
        scores: dict[str, float] = {}
        tasks = self.names("task", stage="downstream", scenario=scenario)
        for method in self.names("method", stage="downstream", scenario=scenario):
            if method in (BASELINE, UPSTREAM, *BASELINES):
                continue
            found = [
                self.values("auc", "downstream", scenario, task, method, split="valid")
                for task in tasks
            ]
            means = [np.mean(values) for values in found if values]
            if means:
                scores[method] = float(np.mean(means))
        return scores


def _key(**entry: Any) -> _Key:
    names = ("stage", "scenario", "task", "method", "slice", "split", "refresh")
    return tuple(entry[name] for name in names)


def _ordered(found: Iterable[str], first: Sequence[str]) -> list[str]:
    return list(dict.fromkeys([*first, *found]))
