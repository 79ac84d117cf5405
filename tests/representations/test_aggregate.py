"""Every aggregation against a loop over the events, and against merged partial states."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.representations.aggregate import Aggregate
from lfm4ads_tf.representations.aggregations.aggregation import Aggregation
from lfm4ads_tf.representations.aggregations.count_decay import CountDecay
from lfm4ads_tf.representations.aggregations.last import Last
from lfm4ads_tf.representations.aggregations.mean import Mean
from lfm4ads_tf.representations.aggregations.time_decay import TimeDecay
from tests.rounding import assert_close

pytestmark = pytest.mark.processor

KEYS, DIM, HALF_LIFE, DECAY = 5, 3, 7.0, 0.9
ALL = np.arange(KEYS)
RULES: dict[str, Aggregation] = {
    "time_decay": TimeDecay(HALF_LIFE),
    "count_decay": CountDecay(DECAY),
    "mean": Mean(),
    "last": Last(),
}
Log = tuple[np.ndarray, np.ndarray, np.ndarray]


def by_loop(kind: str, log: Log) -> np.ndarray:
    """S / W of every key from the definition, one event after the other."""
    out = np.zeros((KEYS, DIM))
    for k in range(KEYS):
        mine = sorted(
            ((t, n, v) for n, (key, v, t) in enumerate(zip(*log, strict=True)) if key == k),
            key=lambda event: event[:2],
        )
        total, weight = np.zeros(DIM), 0.0
        for t, _, v in mine:
            if kind == "time_decay":
                fade = 2.0 ** (-(mine[-1][0] - t) / HALF_LIFE)
                total, weight = total + fade * v, weight + fade
            elif kind == "count_decay":
                total, weight = DECAY * total + v, DECAY * weight + 1
            elif kind == "mean":
                total, weight = total + v, weight + 1
            else:
                total, weight = v, 1.0
        out[k] = total / weight if mine else 0
    return out


def assert_mean(found: np.ndarray, kind: str, log: Log) -> None:
    """A weighted mean's terms are no larger than the largest value; a few roundings for each."""
    largest = np.abs(log[1]).max(initial=0.0)
    assert_close(found, by_loop(kind, log), terms=2 * len(log[0]) + 8, magnitude=largest)


def read(state: Aggregate, **over: Any) -> np.ndarray:
    if "x" not in state.sums:
        return np.zeros((KEYS, DIM), np.float32)
    return state.read("x", ALL, **{"layer_norm": False, **over})


def state_of(kind: str, log: Log, parts: list[np.ndarray]) -> Aggregate:
    key, values, time = log
    state = Aggregate(RULES[kind], KEYS)
    for rows in parts:
        state.update(key[rows], {"x": values[rows]}, time[rows])
    return state


@st.composite
def events(draw: st.DrawFn) -> Log:
    """Events in time order, with equal times among them."""
    count = draw(st.integers(0, 30))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    time = np.sort(rng.integers(0, 50, count)) * draw(st.sampled_from([0.5, 1.0]))
    return rng.integers(0, KEYS, count), rng.normal(size=(count, DIM)), time


@pytest.mark.parametrize("kind", RULES)
@settings(max_examples=40, deadline=None)
@given(events(), st.integers(1, 5))
def test_events_in_portions_give_the_definition(kind: str, log: Log, parts: int) -> None:
    state = state_of(kind, log, np.array_split(np.arange(len(log[0])), parts))
    assert_mean(read(state), kind, log)


@pytest.mark.parametrize("kind", ["time_decay", "mean"])
@settings(max_examples=40, deadline=None)
@given(events(), st.data())
def test_where_order_is_free_any_order_gives_the_definition(
    kind: str, log: Log, data: st.DataObject
) -> None:
    order = np.array(data.draw(st.permutations(range(len(log[0])))), np.int64)
    state = state_of(kind, log, np.array_split(order, data.draw(st.integers(1, 5))))
    assert_mean(read(state), kind, log)


@pytest.mark.parametrize("kind", RULES)
@settings(max_examples=40, deadline=None)
@given(events(), st.data())
def test_merging_partial_states_equals_all_events_together(
    kind: str, log: Log, data: st.DataObject
) -> None:
    """Shards of any events, merged in any order; consecutive stretches for the count decay."""
    count = len(log[0])
    shards = data.draw(st.integers(1, 4))
    if kind == "count_decay":
        cuts = sorted(data.draw(st.lists(st.integers(0, count), min_size=shards, max_size=shards)))
        parts = np.split(np.arange(count), cuts)
    else:
        shard = np.array(
            data.draw(st.lists(st.integers(0, shards - 1), min_size=count, max_size=count)), int
        )
        if kind == "last":  # equal times in different shards: the merge order decides
            shard = shard[np.searchsorted(log[2], log[2])] if count else shard
        parts = [np.flatnonzero(shard == k) for k in data.draw(st.permutations(range(shards)))]
    states = [state_of(kind, log, [rows]) for rows in parts]
    total = Aggregate(RULES[kind], KEYS)
    for state in states:
        before = {n: v.copy() for n, v in state.sums.items()}, state.weight.copy()
        total.merge(state)
        assert all(np.array_equal(v, before[0][n]) for n, v in state.sums.items())
        assert np.array_equal(state.weight, before[1])
    assert_mean(read(total), kind, log)
    whole = state_of(kind, log, [np.arange(count)])
    np.testing.assert_allclose(total.weight, whole.weight, rtol=1e-9)
    np.testing.assert_allclose(total.mark, whole.mark, rtol=1e-12)


def test_layer_normalisation_of_the_count_decay_is_of_the_sum_itself() -> None:
    """Values so small that the epsilon tells S from S / W."""
    values = np.random.default_rng(0).normal(size=(40, DIM)) * 1e-3
    log = (np.zeros(40, int), values, np.arange(40.0))
    total = np.zeros(DIM)
    for v in values:
        total = DECAY * total + v
    state = state_of("count_decay", log, [np.arange(40)])
    normed = (total - total.mean()) / np.sqrt(total.var() + 1e-6)
    np.testing.assert_allclose(read(state, layer_norm=True)[0], normed, rtol=1e-4)
    mean = total / ((1 - DECAY**40) / (1 - DECAY))
    np.testing.assert_allclose(read(state)[0], mean, rtol=1e-4)
    other = state_of("mean", log, [np.arange(40)])
    mean = values.mean(axis=0)
    normed = (mean - mean.mean()) / np.sqrt(mean.var() + 1e-6)
    np.testing.assert_allclose(read(other, layer_norm=True)[0], normed, rtol=1e-3)


def test_float32_sums_of_many_events_stay_accurate() -> None:
    """20,000 events of one key in 200 portions, against float64 from the definition."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=(20_000, DIM)) + 3
    time = np.arange(20_000) / 100
    log = (np.zeros(20_000, int), values, time)
    age = np.arange(20_000)[::-1]
    expected = {
        "mean": np.ones(20_000),
        "count_decay": DECAY**age,
        "time_decay": 2.0 ** (-(time[-1] - time) / HALF_LIFE),
    }
    for kind, weight in expected.items():
        state = state_of(kind, log, np.array_split(np.arange(20_000), 200))
        mean = (weight[:, None] * values).sum(axis=0) / weight.sum()
        np.testing.assert_allclose(read(state)[0], mean, rtol=1e-5)
        assert state.sums["x"].dtype == np.float32


def test_a_key_without_events_reads_as_zeros() -> None:
    state = state_of("time_decay", (np.array([1]), np.ones((1, DIM)), np.zeros(1)), [np.arange(1)])
    for norm in (True, False):
        assert np.array_equal(read(state, layer_norm=norm)[0], np.zeros(DIM))


@pytest.mark.filterwarnings("error")
def test_long_gaps_neither_overflow_nor_warn() -> None:
    state = Aggregate(TimeDecay(1.0), 1)
    state.update(np.zeros(2, int), {"x": np.array([[1.0], [5.0]])}, np.array([0.0, 1e7]))
    state.update(np.zeros(1, int), {"x": np.array([[9.0]])}, np.array([-1e7]))
    state.merge(Aggregate(TimeDecay(1.0), 1))
    np.testing.assert_allclose(state.read("x", np.zeros(1, int), layer_norm=False), [[5.0]])
