from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.representations.aggregate import DecayedSum

KEYS, DIM, HALF_LIFE = 5, 3, 7.0


def brute_force(
    key: np.ndarray, values: np.ndarray, time: np.ndarray, now: float
) -> tuple[np.ndarray, np.ndarray]:
    """S and W of every key at one moment, from the definition."""
    total, weight = np.zeros((KEYS, DIM)), np.zeros(KEYS)
    for k, v, t in zip(key, values, time, strict=True):
        fade = 2.0 ** (-(now - t) / HALF_LIFE)
        total[k] += fade * v
        weight[k] += fade
    return total, weight


def at(state: DecayedSum, now: float) -> tuple[np.ndarray, np.ndarray]:
    """A state decayed to one moment."""
    seen = np.isfinite(state.time)
    fade = np.zeros(KEYS)
    fade[seen] = 2.0 ** (-(now - state.time[seen]) / HALF_LIFE)
    return state.sum * fade[:, None], state.weight * fade


@st.composite
def events(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    count = draw(st.integers(0, 30))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    time = rng.integers(0, 50, count) * draw(st.sampled_from([0.5, 1.0]))
    return rng.integers(0, KEYS, count), rng.normal(size=(count, DIM)), time


def assert_state(state: DecayedSum, log: tuple[np.ndarray, ...]) -> None:
    now = 60.0
    found, expected = at(state, now), brute_force(*log, now)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-9, atol=1e-9)


@settings(max_examples=80, deadline=None)
@given(events(), st.data())
def test_any_order_and_any_partition_give_the_brute_force_state(
    log: tuple[np.ndarray, np.ndarray, np.ndarray], data: st.DataObject
) -> None:
    key, values, time = log
    order = np.array(data.draw(st.permutations(range(len(key)))), np.int64)
    parts = data.draw(st.integers(1, 5))
    state = DecayedSum(KEYS, DIM, HALF_LIFE)
    for rows in np.array_split(order, parts):
        state.update(key[rows], values[rows], time[rows])
    assert_state(state, log)


@settings(max_examples=80, deadline=None)
@given(events(), st.data())
def test_merging_partial_states_equals_all_events_together(
    log: tuple[np.ndarray, np.ndarray, np.ndarray], data: st.DataObject
) -> None:
    key, values, time = log
    first = np.array(data.draw(st.lists(st.booleans(), min_size=len(key), max_size=len(key))), bool)
    one, other = (DecayedSum(KEYS, DIM, HALF_LIFE) for _ in range(2))
    one.update(key[first], values[first], time[first])
    other.update(key[~first], values[~first], time[~first])
    untouched = other.sum.copy(), other.weight.copy()
    one.merge(other)
    assert_state(one, log)
    assert np.array_equal(other.sum, untouched[0]) and np.array_equal(other.weight, untouched[1])


def test_read_is_the_weighted_mean_layer_normalised_on_request() -> None:
    rng = np.random.default_rng(0)
    key, values, time = np.array([1, 1, 3]), rng.normal(size=(3, DIM)), np.array([0.0, 7.0, 2.0])
    state = DecayedSum(KEYS, DIM, HALF_LIFE)
    state.update(key, values, time)
    mean = (0.5 * values[0] + values[1]) / 1.5  # one half-life apart
    plain = state.read(np.array([3, 1, 0]), layer_norm=False)
    assert plain.dtype == np.float32
    np.testing.assert_allclose(plain, [values[2], mean, np.zeros(DIM)], rtol=1e-6)
    normed = state.read(np.array([3, 1, 0]), layer_norm=True)
    expected = (mean - mean.mean()) / np.sqrt(mean.var() + 1e-6)
    np.testing.assert_allclose(normed[1], expected, rtol=1e-5)
    assert np.array_equal(normed[2], np.zeros(DIM))


def test_long_gaps_neither_overflow_nor_warn() -> None:
    state = DecayedSum(1, 1, 1.0)
    state.update(np.zeros(2, int), np.array([[1.0], [5.0]]), np.array([0.0, 1e7]))
    state.update(np.zeros(1, int), np.array([[9.0]]), np.array([-1e7]))
    np.testing.assert_allclose(state.read(np.zeros(1, int), layer_norm=False), [[5.0]])
