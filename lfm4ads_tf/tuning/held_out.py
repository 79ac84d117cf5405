"""Which training rows a search learns from, and which later ones it is scored on."""

from __future__ import annotations

import math

import numpy as np

_SHARE = 0.08  # of the training rows that are held, at least
_EACH = 100  # rows of each class and task that are held, at least, where the log has them
_NOISE = 0.025


def hold_last(period: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Marks the rows of the last period or periods, as many as a score needs.

    The last fifth of the periods is held, rounded up: what is served is asked for rows of several
    periods later, and what is best on the very next one ages faster. Periods before it join until
    the held rows are 8 % of all and hold 100 rows of each class in every task, or half of the
    periods are held. Of a single period the last fifth of the rows is held.

    Args:
        period: (M,) periods of the rows in time order.
        labels: (M, T) 0, 1 or NaN.

    Returns:
        (M,) whether a row is held.
    """
    values = np.unique(period)
    if len(values) < 2:
        return np.arange(len(period)) >= len(period) - max(1, len(period) // 5)
    least = math.ceil(len(values) / 5)
    held = period >= values[-least]
    for count in range(least + 1, len(values) // 2 + 1):
        if held.mean() >= _SHARE and smallest_class(labels[held]) >= _EACH:
            break
        held = period >= values[-count]
    return held


def smallest_class(labels: np.ndarray) -> int:
    """Rows of the rarer class, of the task where they are fewest; 0 without any."""
    return min(_rarer(labels), default=0)


def can_be_scored(labels: np.ndarray) -> bool:
    """Whether some task has both classes among the labels (M, T)."""
    return any(_rarer(labels))


def noise_of(labels: np.ndarray) -> float:
    """Smallest gain in mean AUC over tasks that a search counts, from the held labels (M, T).

        mean over tasks of 0.025 / sqrt(rows of the rarer class)

    Two trainings that differ little rank nearly alike: the standard error of their difference is a
    fraction of that of one AUC, which is about 0.3 / sqrt(n).
    """
    known = [_NOISE / np.sqrt(count) for count in _rarer(labels) if count]
    return float(np.mean(known)) if known else 1.0


def _rarer(labels: np.ndarray) -> list[int]:
    """Rows of the rarer class of every task."""
    return [min(int((c == 1).sum()), int((c == 0).sum())) for c in labels.T]
