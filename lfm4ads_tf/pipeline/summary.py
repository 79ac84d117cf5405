"""The last table of a run: per task, the models beside the baselines."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lfm4ads_tf.baselines.light_gbm import LightGBM
from lfm4ads_tf.baselines.registry import BASELINES
from lfm4ads_tf.features.fitted_encoding import ALL
from lfm4ads_tf.metrics.paired_bootstrap import Scored, paired_bootstrap
from lfm4ads_tf.pipeline.run import Run

TREES = LightGBM.name
_UPSTREAM, _NONE, _FULL = "upstream", "none", "full"


def summary(run: Run, results: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Test AUC of upstream, `none`, `full` and the baselines, and their differences to LightGBM.

    The AUC is the mean over the scenarios with downstream models, weighted by rows, as in
    `overall`; without downstream models it is that of all rows. Where `full` was not trained, the
    transfer with the best mean AUC on validation stands in its place.

    Args:
        run: The run; the differences are bootstrapped over users from stored predictions.
        results: Entries of `metrics.json`.

    Returns:
        One entry per task and method: `task`, `method`, `scenarios`, `rows`, `seeds`, `auc`,
        `auc_daily`, and, where LightGBM has the same seeds, `to_lightgbm`: `difference`, `low` and
        `high` of a 95 % interval (frozen), else None.
    """
    known = set(run.cache.layout.scenarios)
    entries = [e for e in results if e["slice"] == ALL and e["metrics"].get("auc") is not None]
    downstream = [e for e in entries if e["stage"] == "downstream" and e["scenario"] in known]
    trained = [e for e in downstream if e["method"] not in (_UPSTREAM, *BASELINES)]
    if not trained:
        downstream = [
            e for e in entries if e["stage"] in ("upstream", "baseline") and e["scenario"] == ALL
        ]
    table_rows = []
    for task in run.cache.layout.tasks:
        of_task = [e for e in downstream if e["task"] == task]
        names = list(dict.fromkeys(e["scenario"] for e in of_task if e["split"] == "test"))
        shown = _shown(of_task, names)
        test = [e for e in of_task if e["split"] == "test"]
        frozen = {m: _means(test, m, names, "frozen") for m in shown}
        differences = _differences(run, task, names, {m: list(frozen[m]) for m in shown})
        for method in shown:
            daily = _means(test, method, names, "daily")
            if frozen[method]:
                table_rows.append(
                    {
                        "task": task,
                        "method": method,
                        "scenarios": names,
                        "rows": _rows(test, names),
                        "seeds": len(frozen[method]),
                        "auc": float(np.mean(list(frozen[method].values()))),
                        "auc_daily": float(np.mean(list(daily.values()))) if daily else None,
                        "to_lightgbm": differences.get(method),
                    }
                )
    return table_rows


def _shown(entries: list[Mapping[str, Any]], names: list[str]) -> list[str]:
    """The methods of the table in order."""
    present = list(dict.fromkeys(e["method"] for e in entries))
    transfers = [m for m in present if m not in (_UPSTREAM, _NONE, *BASELINES)]
    if _FULL in transfers:
        transfers = [_FULL]
    elif transfers:
        valid = [e for e in entries if e["split"] == "valid"]
        means = {m: _means(valid, m, names, "frozen") for m in transfers}
        best = {
            m: float(np.mean(list(by_seed.values()))) for m, by_seed in means.items() if by_seed
        }
        transfers = [max(best, key=lambda m: best[m])] if best else []
    order = [_UPSTREAM, _NONE, *transfers, *BASELINES]
    return [m for m in order if m in present]


def _rows(entries: Iterable[Mapping[str, Any]], names: Collection[str]) -> int:
    rows = {e["scenario"]: e["rows"] for e in entries}
    return int(sum(rows[name] for name in names))


def _means(
    entries: Iterable[Mapping[str, Any]], method: str, names: list[str], refresh: str
) -> dict[int, float]:
    """Seed -> mean AUC over scenarios weighted by rows, for seeds that have all of them."""
    seeds: dict[int, dict[str, tuple[int, float]]] = {}
    for e in entries:
        if e["method"] == method and e["refresh"] == refresh:
            seeds.setdefault(e["seed"], {})[e["scenario"]] = (e["rows"], e["metrics"]["auc"])
    means = {}
    for seed, by_scenario in seeds.items():
        if all(name in by_scenario for name in names):
            rows, values = zip(*(by_scenario[name] for name in names), strict=True)
            means[seed] = float(np.average(values, weights=rows))
    return means


def _differences(
    run: Run, task: str, names: list[str], seeds: Mapping[str, list[int]]
) -> dict[str, dict[str, float]]:
    """Method -> difference to LightGBM and its interval, over the seeds that all have."""
    if not seeds.get(TREES):
        return {}
    methods = [m for m, trained in seeds.items() if trained]
    shared = sorted(set.intersection(*(set(seeds[m]) for m in methods)))
    if not shared:
        return {}
    column = run.cache.layout.tasks.index(task)
    parts = []
    for name in names:
        rows = run.cache.rows_of("test", None if name == ALL else name)
        scores: dict[str, np.ndarray] = {}
        for method in methods:
            by_seed = [_scores(_folder(run, name, method, s), rows, column) for s in shared]
            whole = [known for known in by_seed if known is not None]
            if len(whole) == len(by_seed):
                scores[method] = np.stack(whole)
        parts.append(Scored(run.cache.labels[rows, column], run.cache.user[rows], scores))
    everywhere = [m for m in methods if all(m in part.scores for part in parts)]
    if TREES not in everywhere:
        return {}
    parts = [Scored(p.labels, p.users, {m: p.scores[m] for m in everywhere}) for p in parts]
    return {
        method: {"difference": interval.value, "low": interval.low, "high": interval.high}
        for method, interval in paired_bootstrap(parts, TREES).items()
    }


def _folder(run: Run, scenario: str, method: str, seed: int) -> Path:
    """Where a method's predictions are."""
    if method == _UPSTREAM:
        return run.upstream(seed)
    if method in BASELINES:
        return run.baseline(method, seed)
    return run.downstream(scenario, method, seed)


def _scores(folder: Path, rows: np.ndarray, column: int) -> np.ndarray | None:
    """Frozen test scores of some rows, None where they are not all stored or not of the labels."""
    path = folder / "predictions.npz"
    if not path.exists():
        return None
    with np.load(path) as stored:
        if "test_of_targets" in stored and stored["test_of_targets"][column]:
            return None
        held, scores = stored["test_rows"], stored["test_frozen"][:, column]
    if not len(held):
        return None
    place = np.minimum(np.searchsorted(held, rows), len(held) - 1)
    taken = scores[place]
    return taken if np.array_equal(held[place], rows) and np.isfinite(taken).all() else None
