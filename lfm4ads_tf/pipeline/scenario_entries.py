"""Scores of a model of one scenario."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lfm4ads_tf.data.cache import Refresh
from lfm4ads_tf.pipeline.global_entries import REFRESHES
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.scoring import Slices, entries


def scenario_entries(
    run: Run,
    score: Callable[[np.ndarray, Refresh], np.ndarray],
    scenario: str,
    **identity: Any,
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Entries for the rows of a scenario or segment, on valid and test, both refreshes.

    Args:
        run: The run.
        score: Rows (M,) and a refresh -> probabilities (M, T).
        scenario: The scenario.
        identity: `stage`, `method`, `seed`, `wall_s`.

    Returns:
        The entries, and the arrays of `predictions.npz`: `<split>_rows` and `<split>_<refresh>`.
    """
    cache = run.cache
    slices = Slices(cache, run.spec)
    all_entries: list[dict[str, Any]] = []
    stored: dict[str, np.ndarray] = {}
    for split in ("valid", "test"):
        rows = cache.rows_of(split, scenario)
        stored[f"{split}_rows"] = rows
        for refresh in REFRESHES:
            scores = score(rows, refresh)
            stored[f"{split}_{refresh}"] = scores
            place = {"scenario": scenario, "refresh": refresh, "split": split}
            all_entries += entries(cache, slices, rows, scores, **_in_order(identity, place))
    return all_entries, stored


def _in_order(identity: dict[str, Any], place: dict[str, Any]) -> dict[str, Any]:
    """The keys of an entry in the order in which they are written."""
    order = ("stage", "scenario", "method", "refresh", "seed", "split", "wall_s")
    return {key: (identity | place)[key] for key in order}
