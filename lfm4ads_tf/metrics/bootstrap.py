"""Uncertainty of an AUC that the choice of users leaves: a bootstrap over users."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.metrics._inputs import labelled_rows, tie_starts

RESAMPLES = 200


@dataclass(frozen=True)
class Interval:
    """A value and its percentile interval over resamples.

    Attributes:
        value: On the rows as they are.
        low, high: Bounds of the interval.
    """

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half of the interval's width: differences below it cannot be told from none."""
        return (self.high - self.low) / 2


def auc_interval(
    labels: ArrayLike,
    scores: ArrayLike,
    users: ArrayLike,
    *,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> Interval | None:
    """The AUC and its percentile interval when users are drawn with replacement.

    Every resample draws as many users as there are, with all of their rows: rows of one user depend
    on each other, and an interval over rows would be too narrow.

    Args:
        labels: (B,) 0, 1 or NaN; rows with NaN are left out.
        scores: (B,) finite on labelled rows.
        users: (B,) user keys, integers or strings.
        resamples: Resamples; those with one class alone are left out.
        level: Share of the resamples inside the interval.
        seed: Seed of the draws: the same users are drawn for every score.

    Returns:
        The interval, or None where the rows or nearly all resamples hold one class.

    Raises:
        UserError: for inputs other than these.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993 (percentile interval;
    resampling of clusters).
    """
    found = _resampled(labels, [scores], users, resamples, seed)
    return None if found is None else _interval(found[0][0], found[1][:, 0], level)


def auc_difference_interval(
    labels: ArrayLike,
    scores: ArrayLike,
    baseline: ArrayLike,
    users: ArrayLike,
    *,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> Interval | None:
    """`AUC(scores) - AUC(baseline)` on the same rows, and its interval by a paired bootstrap.

    Both scores see the same draws of users, so what they share cancels.

    Args:
        labels: (B,) 0, 1 or NaN; rows with NaN are left out.
        scores: (B,) finite on labelled rows.
        baseline: (B,) finite on labelled rows.
        users: (B,) user keys, integers or strings.
        resamples: See `auc_interval`.
        level: See `auc_interval`.
        seed: See `auc_interval`.

    Returns:
        The interval of the difference, or None as `auc_interval`.

    Raises:
        UserError: for inputs other than these.
    """
    found = _resampled(labels, [scores, baseline], users, resamples, seed)
    if found is None:
        return None
    (first, second), drawn = found
    return _interval(first - second, drawn[:, 0] - drawn[:, 1], level)


def _interval(value: float, drawn: np.ndarray, level: float) -> Interval:
    tail = (1.0 - level) / 2
    low, high = np.quantile(drawn, [tail, 1.0 - tail])
    return Interval(value, float(low), float(high))


def _resampled(
    labels: ArrayLike, scores: list[ArrayLike], users: ArrayLike, resamples: int, seed: int
) -> tuple[list[float], np.ndarray] | None:
    """AUC of each score (S), and per resample with both classes (R', S)."""
    user = np.asarray(users)
    ranked = []
    for score in scores:
        positive, value, known = labelled_rows(labels, score)
        if user.shape != known.shape:
            raise UserError(
                "Users must be a vector as long as the labels.",
                received=f"users {user.shape}, labels {known.shape}",
            )
        order = np.argsort(value, kind="stable")
        ranked.append((order, tie_starts(value[order])) if len(value) else None)
    if not positive.any() or positive.all():
        return None
    _, code = np.unique(user[known], return_inverse=True)
    draw = np.random.default_rng(seed)
    people = int(code.max()) + 1
    drawn = []
    for _ in range(resamples):
        times = np.bincount(draw.integers(0, people, people), minlength=people)
        weight = times[code].astype(np.float64)
        if weight[positive].any() and weight[~positive].any():
            drawn.append([_auc(positive, weight, *r) for r in ranked if r is not None])
    if len(drawn) < resamples / 2:
        return None
    ones = np.ones(len(positive))
    values = [_auc(positive, ones, *r) for r in ranked if r is not None]
    return values, np.array(drawn)


def _auc(positive: np.ndarray, weight: np.ndarray, order: np.ndarray, starts: np.ndarray) -> float:
    """Weighted AUC of rows whose order by score is known; see `metrics.auc`."""
    weight, up = weight[order], positive[order]
    above = np.add.reduceat(np.where(up, weight, 0.0), starts)
    below = np.add.reduceat(np.where(up, 0.0, weight), starts)
    before = np.cumsum(below) - below
    return float((above * (before + 0.5 * below)).sum() / (above.sum() * below.sum()))
