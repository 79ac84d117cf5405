"""How much of an AUC the choice of users explains: stored predictions, drawn again by user."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lfm4ads_tf.features.fitted_encoding import ALL
from lfm4ads_tf.metrics import Interval, Resampled, auc_resamples
from lfm4ads_tf.pipeline.run import Run

RESAMPLES = 200
LEAST_RESAMPLES = 50
_COST = 200_000_000  # rows times resamples of one score: about a quarter of a second
STAGES = ("upstream", "downstream", "baseline")
"""Stages whose models keep `predictions.npz`."""

Place = tuple[str, str, str]
"""Scenario, task and split."""


@dataclass(frozen=True)
class Draws:
    """All models of one scenario, task and split over the same draws of users.

    Attributes:
        names: Method and seed of each score, (S,).
        resampled: Their AUCs.
    """

    names: list[tuple[str, int]]
    resampled: Resampled

    def interval(self, method: str, seed: int) -> Interval | None:
        """Interval of one model's AUC, None for a model that is not among them."""
        if (method, seed) not in self.names:
            return None
        return self.resampled.interval(self.names.index((method, seed)))

    def mean(self, method: str) -> float:
        """Mean AUC over a method's seeds."""
        return float(self.resampled.values[self._of(method)].mean())

    def difference(self, method: str, baseline: str) -> Interval | None:
        """Mean over seeds of a method less a baseline's, None where one of them is absent."""
        first, second = self._of(method), self._of(baseline)
        return self.resampled.difference(first, second) if first and second else None

    def _of(self, method: str) -> list[int]:
        return [k for k, (name, _) in enumerate(self.names) if name == method]


def draw_users(run: Run) -> dict[Place, Draws]:
    """Bootstraps the users of valid and test under the frozen scores of all models of a run.

    Args:
        run: The run; models of its seeds without `predictions.npz` are left out.

    Returns:
        Draws by scenario or segment (`all` for all rows), task and split; places with one class
        are left out.
    """
    stored = list(_predictions(run))
    cache, draws = run.cache, {}
    resamples = affordable_resamples(max(len(cache.rows_of(split)) for split in ("valid", "test")))
    names = dict.fromkeys([ALL, *cache.layout.scenarios, *cache.layout.segments])
    for split in ("valid", "test"):
        for scenario in names:
            rows = cache.rows_of(split, None if scenario == ALL else scenario)
            scores = _scores(stored, scenario, split, rows)
            if not scores or not len(rows):
                continue
            users = np.asarray(cache.user[rows])
            for k, task in enumerate(cache.layout.tasks):
                labels = np.asarray(cache.labels[rows, k])
                finite = {n: s[:, k] for n, s in scores.items() if np.isfinite(s[:, k]).all()}
                drawn = auc_resamples(labels, list(finite.values()), users, resamples=resamples)
                if drawn is not None:
                    draws[scenario, task, split] = Draws(list(finite), drawn)
    return draws


def affordable_resamples(rows: int) -> int:
    """Resamples that many rows can pay for: fewer above a million of them."""
    return int(np.clip(_COST // max(rows, 1), LEAST_RESAMPLES, RESAMPLES))


def add_intervals(results: Iterable[dict[str, Any]], draws: Mapping[Place, Draws]) -> None:
    """Sets `auc_low` and `auc_high` of frozen results over all rows of a split, null if undefined.

    Args:
        results: Entries of `metrics.json`.
        draws: What `draw_users` gave.
    """
    for entry in results:
        whole = entry["slice"] == "all" and entry["refresh"] == "frozen"
        if entry["stage"] not in STAGES or not whole:
            continue
        drawn = draws.get((entry["scenario"], entry["task"], entry["split"]))
        interval = None if drawn is None else drawn.interval(entry["method"], entry["seed"])
        low, high = (None, None) if interval is None else (interval.low, interval.high)
        entry["metrics"] = {**entry["metrics"], "auc_low": low, "auc_high": high}


@dataclass(frozen=True)
class _Stored:
    """The predictions of one model; `scenario` is None for one that scored all rows."""

    scenario: str | None
    method: str
    seed: int
    arrays: Mapping[str, np.ndarray]


def _predictions(run: Run) -> Iterable[_Stored]:
    """The stored predictions of a run's seeds, in a fixed order."""
    seeds = {f"seed_{s}": s for s in run.config.all_seeds}
    for stage in STAGES:
        for path in sorted((run.out / stage).rglob("predictions.npz")):
            results = path.parent / "results.json"
            if path.parent.name in seeds and results.exists():
                entries = json.loads(results.read_text("utf-8"))["entries"]
                if entries:
                    scenario = entries[0]["scenario"] if stage == "downstream" else None
                    method, seed = entries[0]["method"], seeds[path.parent.name]
                    yield _Stored(scenario, method, seed, _arrays(path))


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Rows and frozen scores of both splits, and which tasks' are not of the labels."""
    kinds = ("rows", "frozen", "of_targets")
    with np.load(path) as held:
        names = [f"{split}_{kind}" for split in ("valid", "test") for kind in kinds]
        return {name: held[name] for name in names if name in held}


def _scores(
    stored: Iterable[_Stored], scenario: str, split: str, rows: np.ndarray
) -> dict[tuple[str, int], np.ndarray]:
    """(method, seed) -> scores (M, T) of those models that scored all of some rows.

    Scores that are not of the labels are NaN.
    """
    scores: dict[tuple[str, int], np.ndarray] = {}
    for one in stored:
        held = one.arrays.get(f"{split}_rows")
        if held is None or one.scenario not in (None, scenario) or not len(held):
            continue
        place = np.minimum(np.searchsorted(held, rows), len(held) - 1)
        if np.array_equal(held[place], rows):
            values = one.arrays[f"{split}_frozen"][place]
            values[:, one.arrays.get(f"{split}_of_targets", [])] = np.nan
            scores[one.method, one.seed] = values
    return scores
