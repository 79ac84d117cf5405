from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.data.state import FrozenState, write_statistic
from lfm4ads_tf.data.statistics import StatisticEvents, count_and_rate, frozen_totals, point_in_time
from lfm4ads_tf.features.kinds import StatisticFeature


def brute_force(events: StatisticEvents, smoothing: float, daily: bool) -> np.ndarray:
    """The definition, row by row and event by event."""
    rows = len(events.key)
    out = np.zeros((rows, 2))
    for row in range(rows):
        n = s = total = positives = 0
        for e in range(rows):
            if math.isnan(events.positive[e]) or events.key[e] < 0:
                continue
            if events.train[row]:
                counts = events.train[e] and events.period[e] < events.period[row]
            elif events.train[e]:
                counts = True
            else:
                counts = daily and events.period[e] < events.period[row]
            if counts:
                total += 1
                positives += int(events.positive[e])
                if events.key[e] == events.key[row]:
                    n += 1
                    s += int(events.positive[e])
        if n and events.key[row] >= 0:
            p = min(max(positives / total, 1e-4), 1 - 1e-4)
            rate = (s + smoothing * p) / (n + smoothing)
            rate = min(max(rate, 1e-5), 1 - 1e-5)
            out[row] = math.log(1 + n), math.log(rate / (1 - rate)) - math.log(p / (1 - p))
    return out


@st.composite
def event_logs(draw: st.DrawFn) -> StatisticEvents:
    """Auxiliary rows (period -1), training rows and held-out rows whose periods may overlap."""
    rows = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    period = np.sort(rng.integers(-1, 5, rows))
    train = (period < 0) | (rng.random(rows) < draw(st.sampled_from([0.3, 0.8, 1.0])))
    positive = rng.choice([0.0, 1.0, np.nan], rows, p=[0.4, 0.4, 0.2])
    return StatisticEvents(rng.integers(-1, 4, rows), positive, period, train)


@settings(max_examples=60, deadline=None)
@given(event_logs(), st.sampled_from([0.5, 20.0]))
def test_equals_brute_force(events: StatisticEvents, smoothing: float) -> None:
    frozen, daily = point_in_time(events, smoothing)
    np.testing.assert_allclose(frozen, brute_force(events, smoothing, False), atol=2e-6)
    np.testing.assert_allclose(daily, brute_force(events, smoothing, True), atol=2e-6)


@settings(max_examples=60, deadline=None)
@given(event_logs(), st.integers(0, 4), st.integers(0, 10_000))
def test_events_from_a_period_on_change_no_training_row_up_to_it(
    events: StatisticEvents, period: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    later = events.period >= period
    keys = np.where(later, rng.integers(-1, 9, len(events.key)), events.key)
    labels = np.where(later, rng.choice([0.0, 1.0, np.nan], len(events.key)), events.positive)
    # The rows up to the period keep their own keys, which are what the value is looked up by.
    own = events.period <= period
    keys_of_later = np.where(own, events.key, keys)
    before = point_in_time(events, 5.0)
    after = point_in_time(StatisticEvents(keys_of_later, labels, events.period, events.train), 5.0)
    rows = own & events.train
    for old, new in zip(before, after, strict=True):
        assert np.array_equal(old[rows], new[rows])


def test_closed_form() -> None:
    # 3 events, 2 positive, prior 1/2, smoothing 1: rate = 2.5 / 4.
    count, rate = count_and_rate(3, 2, 0.5, 1.0)
    assert count == pytest.approx(math.log(4))
    assert rate == pytest.approx(math.log(2.5 / 1.5))
    assert np.array_equal(count_and_rate(0, 0, 0.3, 1.0), [0.0, 0.0])
    assert np.isfinite(count_and_rate(10, 0, 0.0, 1.0)).all()


@settings(max_examples=25, deadline=None)
@given(event_logs(), st.sampled_from([1.0, 20.0]))
def test_state_at_the_end_of_training_gives_the_frozen_value_of_later_rows(
    tmp_path_factory: pytest.TempPathFactory, events: StatisticEvents, smoothing: float
) -> None:
    folder: Path = tmp_path_factory.mktemp("state")
    frozen, _ = point_in_time(events, smoothing)
    keys, n, s, prior = frozen_totals(events)
    write_statistic(folder, "f", [pa.array([f"k{k}" for k in keys], pa.string())], n, s, prior)
    feature = StatisticFeature(
        owner="user", kind="statistic", task="t", keys=["user"], smoothing=smoothing
    )
    rows = np.flatnonzero(~events.train)
    asked = pa.array([f"k{k}" if k >= 0 else None for k in events.key[rows]], pa.string())
    values = FrozenState(folder).statistic("f", feature, [asked])
    assert list(values) == ["f.count", "f.rate"]
    assert np.array_equal(np.stack(list(values.values()), axis=1), frozen[rows])


def test_state_of_two_keys(tmp_path: Path) -> None:
    keys = [pa.array(["a", "a", "ab"]), pa.array(["bc", "c", "c"])]
    write_statistic(tmp_path, "f", keys, np.array([1, 2, 3]), np.array([1, 0, 2]), 0.25)
    feature = StatisticFeature(
        owner="user", kind="statistic", task="t", keys=["x", "y"], values=["count"]
    )
    asked = [pa.array(["ab", "a", "a", None, "z"]), pa.array(["c", "bc", "c", "c", "c"])]
    values = FrozenState(tmp_path).statistic("f", feature, asked)
    assert list(values) == ["f.count"]
    np.testing.assert_allclose(np.expm1(values["f.count"]), [3, 1, 2, 0, 0], atol=1e-6)
