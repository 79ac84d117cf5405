"""Ranks the configurations of a sweep and chooses among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.metrics import holm, paired_comparison
from lfm4ads_tf.pipeline.sweep_candidate import BASELINE

Values = Mapping[str, Mapping[int, float | None]]
"""Method -> seed -> validation AUC, None where undefined."""

LEVEL = 0.05


def mean_values(parts: Sequence[tuple[float, Values]]) -> dict[str, dict[int, float | None]]:
    """The weighted mean of several tables of values, method by method and seed by seed.

    A part that is undefined in a seed is left out there, with its weight.

    Args:
        parts: (weight, values); all have the same methods and seeds.
    """
    means: dict[str, dict[int, float | None]] = {}
    for method in parts[0][1] if parts else ():
        means[method] = {}
        for seed in parts[0][1][method]:
            known = [(w, v) for w, p in parts if w > 0 and (v := p[method][seed]) is not None]
            total = sum(w for w, _ in known)
            means[method][seed] = sum(w * v for w, v in known) / total if known else None
    return means


def ranking(values: Values) -> dict[str, dict[str, Any]]:
    """Statistics of every method, compared with `none` by paired tests.

    Returns:
        Method -> `seeds`, `mean`, `sd`, `diff`, `diff_sd`, `p`, `p_holm` (adjusted for all methods
        of this table), `rank` (from 1, by mean; None where undefined).
    """
    statistics: dict[str, dict[str, Any]] = {}
    for method, by_seed in values.items():
        known = [v for v in by_seed.values() if v is not None]
        paired = None
        if method != BASELINE:
            paired = paired_comparison(by_seed, values[BASELINE])
        statistics[method] = {
            "seeds": len(known),
            "mean": float(np.mean(known)) if known else None,
            "sd": float(np.std(known, ddof=1)) if len(known) > 1 else None,
            "diff": paired.diff_mean if paired else None,
            "diff_sd": paired.diff_sd if paired else None,
            "p": paired.p if paired else None,
        }
    for entry, adjusted in zip(
        statistics.values(), holm([e["p"] for e in statistics.values()]), strict=True
    ):
        entry["p_holm"] = adjusted
    means = {m: e["mean"] for m, e in statistics.items() if e["mean"] is not None}
    order = sorted(means, key=lambda m: -means[m])  # stable: the earlier of two equal ones first
    for method, entry in statistics.items():
        entry["rank"] = order.index(method) + 1 if method in means else None
    return statistics


def choice(values: Values) -> dict[str, Any] | None:
    """The method with the highest mean, the earlier one of two equal ones; never `none`.

    Returns:
        `method`, and `not_told_apart`: the others, `none` included, whose difference to it has
        p >= 0.05 in a paired test (None with one seed, which allows no test). None where no
        method has a value.
    """
    ranked = ranking(values)
    eligible = [m for m, e in ranked.items() if m != BASELINE and e["mean"] is not None]
    if not eligible:
        return None
    best = min(eligible, key=lambda m: ranked[m]["rank"])
    tests = {m: paired_comparison(values[best], values[m]).p for m in values if m != best}
    untested = all(p is None for p in tests.values())
    near = [m for m, p in tests.items() if p is not None and p >= LEVEL]
    return {"method": best, "not_told_apart": None if untested else near}


def require_choice(values: Values) -> dict[str, Any]:
    """As `choice`.

    Raises:
        UserError: No method has a value.
    """
    chosen = choice(values)
    if chosen is None:
        raise UserError(
            "No configuration has an AUC on the validation split.",
            received="one class, or no labelled row, in every scenario",
            fix="choose a later split.valid_until, or other --scenarios or --task",
        )
    return chosen
