"""Tells where a metric will be undefined because held-out labels are of one class."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from lfm4ads_tf.data.cache import EncodedCache

_LOG = logging.getLogger(__name__)


def warn_one_class(
    cache: EncodedCache, *, min_rows: int, scenarios: Sequence[str] | None = None
) -> None:
    """Warns of every task whose known labels of valid or test are all of one class, or none.

    Args:
        cache: Encoded data.
        min_rows: Scenarios and segments with at least so many training rows are looked at by
            themselves too, where the whole split has both classes.
        scenarios: Those that were asked for by name, in place of the ones with enough rows.
    """
    names = [
        name
        for name in (*cache.layout.scenarios, *cache.layout.segments)
        if (
            len(cache.rows_of("train", name)) >= min_rows
            if scenarios is None
            else name in scenarios
        )
    ]
    for split in ("valid", "test"):
        everywhere = cache.rows_of(split)
        for k, task in enumerate(cache.layout.tasks):
            if _warn(cache.labels[everywhere, k], task, f"the {split} split"):
                continue
            for name in names:
                rows = cache.rows_of(split, name)
                if len(rows):
                    _warn(cache.labels[rows, k], task, f"the {split} split of '{name}'")


def _warn(labels: np.ndarray, task: str, place: str) -> bool:
    """Warns unless both classes are among some labels; whether it did."""
    known = labels[np.isfinite(labels)]
    positives = int((known == 1).sum())
    if not len(known):
        _LOG.warning(
            "task '%s': none of the %s labels of %s is known: no metric is defined there",
            task,
            f"{len(labels):,}",
            place,
        )
    elif positives in (0, len(known)):
        _LOG.warning(
            "task '%s': all %s known labels of %s are %d: its AUC is undefined there",
            task,
            f"{len(known):,}",
            place,
            int(positives > 0),
        )
    else:
        return False
    return True
