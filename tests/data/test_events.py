from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.data.cache import Bag
from lfm4ads_tf.data.events import event_sequences


def lists_of(bag: Bag) -> list[list[int]]:
    return [bag.values[a:b].tolist() for a, b in zip(bag.splits, bag.splits[1:], strict=False)]


def brute_force(
    user: np.ndarray,
    values: np.ndarray,
    positive: np.ndarray,
    period: np.ndarray,
    train: np.ndarray,
    max_length: int,
    daily: bool,
) -> list[list[int]]:
    out = []
    for row in range(len(user)):
        mine = [e for e in range(len(user)) if positive[e] and user[e] == user[row]]
        if train[row]:
            seen = [e for e in mine if train[e] and period[e] < period[row]]
        else:
            seen = [e for e in mine if train[e]]
            if daily:  # the events of the moving days follow those of training
                seen += [e for e in mine if not train[e] and period[e] < period[row]]
        out.append([int(values[e]) for e in seen][-max_length:])
    return out


@st.composite
def logs(draw: st.DrawFn) -> tuple[np.ndarray, ...]:
    rows = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    period = np.sort(rng.integers(draw(st.sampled_from([-1, 0])), 5, rows))
    train = (period < 0) | (rng.random(rows) < draw(st.sampled_from([0.0, 0.5, 1.0])))
    user, values = rng.integers(0, 4, rows), rng.integers(0, 99, rows)
    return user, values, rng.random(rows) < 0.6, period, train


@settings(max_examples=80, deadline=None)
@given(logs(), st.integers(1, 5))
def test_equals_brute_force(log: tuple[np.ndarray, ...], max_length: int) -> None:
    frozen, daily = event_sequences(*log, max_length)
    assert lists_of(frozen) == brute_force(*log, max_length, daily=False)
    assert lists_of(daily) == brute_force(*log, max_length, daily=True)


def test_held_out_events_move_only_the_daily_state() -> None:
    user = np.zeros(4, np.int64)
    values = np.array([10, 11, 12, 13])
    train = np.array([True, True, False, False])
    frozen, daily = event_sequences(
        user, values, np.ones(4, bool), np.array([0, 1, 2, 3]), train, 2
    )
    assert lists_of(frozen) == [[], [10], [10, 11], [10, 11]]
    assert lists_of(daily) == [[], [10], [10, 11], [11, 12]]


@settings(max_examples=40, deadline=None)
@given(logs(), st.integers(0, 4))
def test_labels_from_a_period_on_change_no_training_row_up_to_it(
    log: tuple[np.ndarray, ...], changed: int
) -> None:
    user, values, positive, period, train = log
    flipped = np.where(period >= changed, ~positive, positive)
    before = event_sequences(user, values, positive, period, train, 3)[0]
    after = event_sequences(user, values, flipped, period, train, 3)[0]
    rows = np.flatnonzero(train & (period <= changed))
    assert lists_of(before.take(rows)) == lists_of(after.take(rows))
