"""Point-in-time counts and rates of a task per key."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_PRIOR_BOUND = 1e-4  # a task with no positive so far still has a finite log-odds

LARGEST_LOG_ODDS = float(np.log((1 - _PRIOR_BOUND) / _PRIOR_BOUND))
"""Of a prior; a statistic's rate is a difference to it."""


@dataclass(frozen=True)
class StatisticEvents:
    """Which rows are events of a statistic, and when.

    Attributes:
        key: Code of the row's key, (N,) int64; -1 is a missing key, which counts nothing.
        positive: Label, (N,) float; NaN where the row is no event.
        period: (N,) int; -1 precedes all.
        train: Whether the row is a training (or auxiliary) row, (N,) bool.
    """

    key: np.ndarray
    positive: np.ndarray
    period: np.ndarray
    train: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """Rows that are events, (N,) bool."""
        return ~np.isnan(self.positive) & (self.key >= 0)


def count_and_rate(
    events: int | np.ndarray,
    positives: int | np.ndarray,
    prior: float | np.ndarray,
    smoothing: float,
) -> np.ndarray:
    """The two numbers of a statistic.

        count = log(1 + n)
        rate  = logit((s + smoothing p) / (n + smoothing)) - logit(p)

    Args:
        events: n, (N,).
        positives: s, (N,).
        prior: p, scalar or (N,).
        smoothing: Weight of the prior, in events.

    Returns:
        (N, 2) float32; (0, 0) where n is 0.
    """
    p = np.clip(prior, _PRIOR_BOUND, 1 - _PRIOR_BOUND)
    rate = (positives + smoothing * p) / (events + smoothing)
    rate = np.clip(rate, _PRIOR_BOUND / 10, 1 - _PRIOR_BOUND / 10)
    shift = np.log(rate / (1 - rate)) - np.log(p / (1 - p))
    shift = np.where(np.asarray(events) > 0, shift, 0.0)
    return np.stack([np.log1p(events), shift], axis=-1).astype(np.float32)  # (N, 2)


def point_in_time(events: StatisticEvents, smoothing: float) -> tuple[np.ndarray, np.ndarray]:
    """A statistic for every row, from earlier events only.

    A training row of period d counts training events of periods before d. Any other row counts
    all training events (`frozen`), and in `daily` also the valid and test events of periods
    before its own.

    Returns:
        frozen and daily values, each (N, 2) float32; equal on training rows.
    """
    known = events.known
    trained = known & events.train
    later = known & ~events.train
    counts = _PeriodCounts(events.key[trained], events.period[trained], events.positive[trained])
    moving = _PeriodCounts(events.key[later], events.period[later], events.positive[later])
    end = int(events.period.max(initial=0)) + 1

    horizon = np.where(events.train, events.period, end)
    n, s = counts.before(events.key, horizon)
    total, positive = counts.totals_before(horizon)
    frozen = _smoothed(events.key, n, s, total, positive, smoothing)

    since = np.where(events.train, -1, events.period)
    extra_n, extra_s = moving.before(events.key, since)
    extra_total, extra_positive = moving.totals_before(since)
    daily = _smoothed(
        events.key,
        n + extra_n,
        s + extra_s,
        total + extra_total,
        positive + extra_positive,
        smoothing,
    )
    return frozen, daily


def frozen_totals(events: StatisticEvents) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """The state at the end of training.

    Returns:
        Distinct keys (M,), their events n (M,) and positives s (M,), and the prior p.
    """
    rows = events.known & events.train
    keys, inverse = np.unique(events.key[rows], return_inverse=True)
    n = np.bincount(inverse, minlength=len(keys))
    s = np.bincount(inverse, weights=events.positive[rows], minlength=len(keys))
    total = int(n.sum())
    return keys, n, s, float(s.sum() / total) if total else 0.5


def _smoothed(
    key: np.ndarray,
    n: np.ndarray,
    s: np.ndarray,
    total: np.ndarray,
    positive: np.ndarray,
    smoothing: float,
) -> np.ndarray:
    prior = np.where(total > 0, positive / np.maximum(total, 1), 0.5)
    return count_and_rate(np.where(key < 0, 0, n), s, prior, smoothing)


class _PeriodCounts:
    """Cumulative counts per (key, period), answering "how many before period d"."""

    def __init__(self, key: np.ndarray, period: np.ndarray, positive: np.ndarray) -> None:
        # Periods start at -1; one code per (key, period) keeps keys apart and periods in order.
        self._span = int(period.max(initial=-1)) + 3
        codes, inverse = np.unique(key * self._span + period + 1, return_inverse=True)
        self._codes = codes
        self._n = _cumulative(np.bincount(inverse, minlength=len(codes)))
        self._s = _cumulative(np.bincount(inverse, weights=positive, minlength=len(codes)))
        self._period_n = _cumulative(np.bincount(period + 1, minlength=self._span))
        self._period_s = _cumulative(
            np.bincount(period + 1, weights=positive, minlength=self._span)
        )

    def before(self, key: np.ndarray, period: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Events and positives of each key in periods before the given one."""
        safe = np.maximum(key, 0) * self._span
        upper = np.clip(period + 1, 0, self._span - 1)
        stop = np.searchsorted(self._codes, safe + upper)
        start = np.searchsorted(self._codes, safe)
        n, s = self._n[stop] - self._n[start], self._s[stop] - self._s[start]
        return np.where(key < 0, 0, n), np.where(key < 0, 0, s)

    def totals_before(self, period: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Events and positives of all keys in periods before the given one."""
        upper = np.clip(period + 1, 0, self._span)
        return self._period_n[upper], self._period_s[upper]


def _cumulative(counts: np.ndarray) -> np.ndarray:
    """Exclusive prefix sums with the total at the end."""
    return np.concatenate([np.zeros(1, counts.dtype), np.cumsum(counts)])
