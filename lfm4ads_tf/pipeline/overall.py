"""Methods over all scenarios of a run: means weighted by rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from lfm4ads_tf.metrics import paired_comparison

BASELINES = ("none", "feature/linear/UR", "upstream")


def overall(
    results: Iterable[Mapping[str, Any]], scenarios: Collection[str]
) -> list[dict[str, Any]]:
    """Mean AUC over the scenarios that have downstream models, weighted by their rows.

        mean_m = sum_s n_s AUC_{m,s} / sum_s n_s

    A method has a mean for the seeds for which it has an AUC in every scenario.

    Args:
        results: Entries of `metrics.json`.
        scenarios: Scenarios that count; segments, whose rows are in scenarios too, do not.

    Returns:
        Per task, split, refresh and method: `mean`, `sd` over seeds, `seeds`, `rows`, `positives`,
        and `to`, baseline -> paired difference over seeds (`diff_mean`, `diff_sd`, `p`, `seeds`).
    """
    values: dict[tuple[str, str, str], dict[str, dict[int, dict[str, float]]]] = defaultdict(dict)
    rows: dict[tuple[str, str, str], dict[str, int]] = defaultdict(dict)
    positives: dict[tuple[str, str, str], dict[str, int | None]] = defaultdict(dict)
    for entry in results:
        counts = entry["stage"] == "downstream" and entry["slice"] == "all"
        if counts and entry["scenario"] in scenarios and entry["metrics"]["auc"] is not None:
            key = (entry["task"], entry["split"], entry["refresh"])
            by_seed = values[key].setdefault(entry["method"], {})
            by_seed.setdefault(entry["seed"], {})[entry["scenario"]] = entry["metrics"]["auc"]
            rows[key][entry["scenario"]] = entry["rows"]
            positives[key][entry["scenario"]] = entry.get("positives")
    overall_entries = []
    for key, methods in values.items():
        names = list(rows[key])
        counted = [n for n in positives[key].values() if n is not None]
        weights = np.array([rows[key][s] for s in names], np.float64)
        means: dict[str, dict[int, float | None]] = {}
        for method, seeds in methods.items():
            means[method] = {
                seed: float(weights @ np.array([by_scenario[s] for s in names]) / weights.sum())
                for seed, by_scenario in seeds.items()
                if len(by_scenario) == len(names)
            }
        for method, mean in means.items():
            known = [v for v in mean.values() if v is not None]
            if not known:
                continue
            overall_entries.append(
                {
                    **dict(zip(("task", "split", "refresh"), key, strict=True)),
                    "method": method,
                    "scenarios": names,
                    "rows": int(weights.sum()),
                    "positives": sum(counted) if len(counted) == len(names) else None,
                    "seeds": len(known),
                    "mean": float(np.mean(known)),
                    "sd": float(np.std(known, ddof=1)) if len(known) > 1 else None,
                    "to": {
                        other: vars(paired_comparison(mean, means[other]))
                        for other in BASELINES
                        if other in means and other != method
                    },
                }
            )
    return overall_entries
