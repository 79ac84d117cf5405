"""Uncertainty of an AUC that the choice of users leaves: a bootstrap over users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.metrics._inputs import labelled_rows, tie_starts

RESAMPLES = 200
_BINS = 1024
_WEIGHTS_AT_ONCE = 1 << 25


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


@dataclass(frozen=True)
class Resampled:
    """The AUC of several scores of the same rows, and over the same draws of users.

    Attributes:
        values: On the rows as they are, (S,).
        drawn: Per resample, (R, S).
    """

    values: NDArray[np.float64]
    drawn: NDArray[np.float64]

    def interval(self, score: int, *, level: float = 0.95) -> Interval:
        """The percentile interval of one score's AUC."""
        return _interval(self.values[score], self.drawn[:, score], level)

    def difference(
        self, first: Sequence[int], second: Sequence[int], *, level: float = 0.95
    ) -> Interval:
        """Mean AUC of some scores less that of others, and its paired interval.

        Args:
            first, second: Positions of the scores, such as the seeds of two methods.
            level: Share of the resamples inside the interval.
        """
        one, two = list(first), list(second)
        value = self.values[one].mean() - self.values[two].mean()
        drawn = self.drawn[:, one].mean(axis=1) - self.drawn[:, two].mean(axis=1)
        return _interval(value, drawn, level)


def auc_resamples(
    labels: ArrayLike,
    scores: Sequence[ArrayLike],
    users: ArrayLike,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Resampled | None:
    """The AUCs of several scores when users are drawn with replacement, the same for all.

    A resample's AUC is that of the rows weighted by how often their user was drawn. Scores with
    more than 1024 distinct values are put into that many groups of equally many rows for it, as
    if those of a group were tied; the groups' own AUC is corrected to the exact one. A resample
    thus costs a few nanoseconds a row.

    Args:
        labels: See `auc_interval`.
        scores: S vectors (B,), finite on labelled rows.
        users: See `auc_interval`.
        resamples: See `auc_interval`.
        seed: See `auc_interval`.

    Returns:
        None without a score, or where the rows or more than half of the resamples hold one class.

    Raises:
        UserError: for inputs other than these.
    """
    user = np.asarray(users)
    if not scores:
        return None
    ordered = []
    for score in scores:
        positive, value, known = labelled_rows(labels, score)
        if user.shape != known.shape:
            raise UserError(
                "Users must be a vector as long as the labels.",
                received=f"users {user.shape}, labels {known.shape}",
            )
        if not positive.any() or positive.all():
            return None
        order = np.argsort(value, kind="stable")
        ordered.append((order, tie_starts(value[order])))
    _, code = np.unique(user[known], return_inverse=True)
    people = int(code.max()) + 1
    values = [_auc(*_counts(positive[o], starts)) for o, starts in ordered]
    draw = np.random.default_rng(seed)
    at_once = max(1, min(resamples, _WEIGHTS_AT_ONCE // people))
    drawn = []
    for start in range(0, resamples, at_once):
        weights = np.empty((people, min(at_once, resamples - start)), np.float32)
        for k in range(weights.shape[1]):
            weights[:, k] = np.bincount(draw.integers(0, people, people), minlength=people)
        found = []
        for value, (order, starts) in zip(values, ordered, strict=True):
            coarse = _grouped(starts, len(order))
            shift = value - _auc(*_counts(positive[order], coarse))
            up, down = _matrices(positive[order], code[order], coarse, people)
            with np.errstate(invalid="ignore"):  # a resample of one class
                found.append(_auc(up @ weights, down @ weights) + shift)
        drawn.append(np.stack(found, axis=1))  # (R, S)
    every = np.concatenate(drawn)
    every = every[np.isfinite(every).all(axis=1)]
    if len(every) < resamples / 2:
        return None
    return Resampled(np.array(values), every)


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
    found = auc_resamples(labels, [scores], users, resamples=resamples, seed=seed)
    return None if found is None else found.interval(0, level=level)


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
    found = auc_resamples(labels, [scores, baseline], users, resamples=resamples, seed=seed)
    return None if found is None else found.difference([0], [1], level=level)


def _interval(value: float, drawn: np.ndarray, level: float) -> Interval:
    tail = (1.0 - level) / 2
    low, high = np.quantile(drawn, [tail, 1.0 - tail])
    return Interval(float(value), float(low), float(high))


def _counts(
    positive: NDArray[np.bool_], starts: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positives and negatives of each group of rows in the order of the score, (G,)."""
    up = np.add.reduceat(positive, starts, dtype=np.float64)
    return up, np.diff(np.r_[starts, len(positive)]) - up


def _grouped(starts: NDArray[np.intp], rows: int) -> NDArray[np.intp]:
    """Starts of at most `_BINS` groups of about equally many rows; ties stay together."""
    if len(starts) <= _BINS:
        return starts
    place = starts * _BINS // rows
    return starts[np.r_[True, place[1:] != place[:-1]]]


def _matrices(
    positive: NDArray[np.bool_], code: NDArray[np.intp], starts: NDArray[np.intp], people: int
) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Each user's positives and negatives in each group, (G, people)."""
    made = []
    for chosen in (positive, ~positive):
        counts = np.add.reduceat(chosen, starts, dtype=np.int64)
        ones = np.ones(int(counts.sum()), np.float32)
        places = (ones, code[chosen], np.r_[0, np.cumsum(counts)])
        made.append(sparse.csr_matrix(places, shape=(len(starts), people)))
    return made[0], made[1]


def _auc(above: np.ndarray, below: np.ndarray) -> Any:
    """AUC from positives and negatives of each group, (G,) or (G, R); see `metrics.auc`."""
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    before = np.cumsum(below, axis=0) - below
    return (above * (before + 0.5 * below)).sum(0) / (above.sum(0) * below.sum(0))
