"""Scores of a model of all scenarios: as a whole, by scenario and by segment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lfm4ads_tf.data.cache import Refresh
from lfm4ads_tf.features.fitted_encoding import ALL
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.scoring import Slices, Targets, entries

REFRESHES: tuple[Refresh, ...] = ("frozen", "daily")


def global_entries(
    run: Run,
    score: Callable[[np.ndarray, Refresh], np.ndarray],
    *,
    targets: Targets = np.asarray,
    splits: Sequence[str] = ("valid", "test"),
    refreshes: Sequence[Refresh] = REFRESHES,
    **identity: Any,
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Entries for all rows, each scenario and each segment, by split and refresh.

    Args:
        run: The run.
        score: Rows (M,) and a refresh -> probabilities (M, T).
        targets: What the probabilities are of, where it is not the labels.
        splits: Splits that are scored.
        refreshes: Refreshes in which they are.
        identity: `stage`, `method`, `seed`, `wall_s`.

    Returns:
        The entries, and the arrays of `predictions.npz`: `<split>_rows` and `<split>_<refresh>`;
        and, where some are not of the labels, `<split>_of_targets` (T,), which tasks' are not.
    """
    cache = run.cache
    slices = Slices(cache, run.spec)
    all_entries: list[dict[str, Any]] = []
    stored: dict[str, np.ndarray] = {}
    for split in splits:
        rows = cache.rows_of(split)
        labels = cache.labels[rows]
        pairs = zip(labels.T, targets(labels).T, strict=True)
        of_targets = [not np.array_equal(one, of, equal_nan=True) for one, of in pairs]
        if any(of_targets):  # nothing else may hold them against the labels
            stored[f"{split}_of_targets"] = np.array(of_targets)
        for refresh in refreshes:
            scores = score(rows, refresh)
            stored[f"{split}_{refresh}"] = scores
            split_identity = {
                **identity, "refresh": refresh, "split": split, "targets": targets,
            }  # fmt: skip
            all_entries += entries(cache, slices, rows, scores, scenario=ALL, **split_identity)
            for scenario in (*cache.layout.scenarios, *cache.layout.segments):
                if scenario == ALL:  # without a scenario key: the entries above
                    continue
                mine = np.isin(rows, cache.rows_of(split, scenario), assume_unique=True)
                if mine.any():
                    all_entries += entries(
                        cache, slices, rows[mine], scores[mine], scenario=scenario, **split_identity
                    )
        stored[f"{split}_rows"] = rows
    return all_entries, stored
