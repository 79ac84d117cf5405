"""Sequences of a user's earlier items, built from the log."""

from __future__ import annotations

import numpy as np

from lfm4ads_tf.data.cache import Bag


def event_sequences(
    user: np.ndarray,
    values: np.ndarray,
    positive: np.ndarray,
    period: np.ndarray,
    train: np.ndarray,
    max_length: int,
) -> tuple[Bag, Bag]:
    """The last positive items of each row's user, point in time.

    A training row of period d lists training events of periods before d; any other row lists all
    training events (`frozen`), and in `daily` the valid and test events of earlier periods too.

    Args:
        user: Code of the row's user, (N,).
        values: Id of the row's item, (N,), rows in time order.
        positive: Whether the row is an event of the sequence, (N,) bool.
        period: (N,) int; -1 precedes all.
        train: Whether the row is a training (or auxiliary) row, (N,) bool.
        max_length: Items kept, the latest.

    Returns:
        frozen and daily, bags of N lists.
    """
    end = int(period.max(initial=0)) + 1
    trained = np.flatnonzero(positive & train)
    horizon = np.where(train, period, end)
    frozen = _last_before(user, values, period, trained, user, horizon, max_length)

    # Training events come before all others of their user for these rows, so they are given a
    # period before the first one.
    anyone = np.flatnonzero(positive)
    moved = np.where(train, -2, period)
    rows = np.flatnonzero(~train)
    moving = _last_before(user, values, moved, anyone, user[rows], period[rows], max_length)
    lengths = np.diff(frozen.splits)
    lengths[rows] = np.diff(moving.splits)
    splits = np.concatenate([[0], np.cumsum(lengths)])
    daily = np.empty(int(splits[-1]), frozen.values.dtype)
    own = np.repeat(train, lengths)
    frozen_own = np.repeat(train, np.diff(frozen.splits))
    daily[own] = frozen.values[frozen_own]
    daily[~own] = moving.values
    return frozen, Bag(daily, splits)


def _last_before(
    user: np.ndarray,
    values: np.ndarray,
    period: np.ndarray,
    events: np.ndarray,
    row_user: np.ndarray,
    row_period: np.ndarray,
    max_length: int,
) -> Bag:
    """For each row, the last values of its user's events in periods before its own."""
    # lexsort is stable in the event's position, so events keep their time order.
    order = events[np.lexsort((events, period[events], user[events]))]
    low = int(period.min(initial=0))
    span = int(max(period.max(initial=0), row_period.max(initial=0))) - low + 2
    codes = user[order] * span + (period[order] - low)
    base = row_user * span
    stop = np.searchsorted(codes, base + np.clip(row_period - low, 0, span - 1))
    start = np.maximum(np.searchsorted(codes, base), stop - max_length)
    lengths = stop - start
    splits = np.concatenate([[0], np.cumsum(lengths)])
    positions = np.repeat(start - splits[:-1], lengths) + np.arange(splits[-1])
    return Bag(values[order[positions]], splits)
