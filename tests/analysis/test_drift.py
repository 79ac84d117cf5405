"""Distances of distributions against plain NumPy, and their sampling allowance."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.analysis.drift import (
    Measure,
    bag_measures,
    id_measures,
    number_measures,
)

Bag = tuple[np.ndarray, np.ndarray]


def _by_kind(measures: list[Measure]) -> dict[str, Measure]:
    return {measure.kind: measure for measure in measures}


def _flat(lists: list[list[int]]) -> Bag:
    splits = np.concatenate([[0], np.cumsum([len(of) for of in lists])]).astype(np.int64)
    return np.array([v for of in lists for v in of], np.int32), splits


def _farthest(p: dict[int, float], q: dict[int, float]) -> float:
    return max((abs(p.get(v, 0.0) - q.get(v, 0.0)) for v in {*p, *q}), default=0.0)


def _shares(values: list[int]) -> dict[int, float]:
    return {v: n / len(values) for v, n in Counter(values).items()}


ids = st.lists(st.integers(-1, 6), min_size=1, max_size=60)


@given(training=ids, logged=ids)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_id_measures_are_what_counting_gives(training: list[int], logged: list[int]) -> None:
    found = _by_kind(
        id_measures(np.array(training), np.array(logged), table_rows=7, vocabulary=True)
    )
    sides = [training, logged]
    missing = [side.count(-1) / len(side) for side in sides]
    assert found["missing"].distance == pytest.approx(missing[1] - missing[0])
    present = [[v for v in side if v >= 0] for side in sides]
    if all(present):
        unseen = [side.count(0) / len(side) for side in present]
        assert found["oov"].distance == pytest.approx(unseen[1] - unseen[0])
    else:
        assert found["oov"].distance is None
    known = [[v for v in side if v > 0] for side in sides]
    if all(known):
        p, q = (_shares(side) for side in known)
        worst = found["linf"].worst
        assert found["linf"].distance == pytest.approx(_farthest(p, q))
        assert worst.value is not None
        assert worst.training == pytest.approx(p.get(worst.value, 0.0))
        assert worst.logged == pytest.approx(q.get(worst.value, 0.0))
    else:
        assert found["linf"].distance is None
    assert (found["linf"].rows, found["linf"].train_rows) == (len(known[1]), len(known[0]))


def test_without_a_vocabulary_id_0_is_a_value_like_any_other() -> None:
    found = _by_kind(
        id_measures(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), table_rows=2, vocabulary=False)
    )
    assert "oov" not in found
    assert found["linf"].distance == pytest.approx(0.25)
    assert found["linf"].rows == 4


bags = st.lists(st.lists(st.integers(0, 4), max_size=4), min_size=1, max_size=30)


@given(training=bags, logged=bags)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_bag_measures_give_every_row_the_same_weight(
    training: list[list[int]], logged: list[list[int]]
) -> None:
    found = _by_kind(bag_measures(_flat(training), _flat(logged), table_rows=5, vocabulary=True))
    sides = [training, logged]
    missing = [np.mean([not row for row in side]) for side in sides]
    assert found["missing"].distance == pytest.approx(missing[1] - missing[0])
    present = [[row for row in side if row] for side in sides]
    if all(present):
        unseen = [np.mean([row.count(0) / len(row) for row in side]) for side in present]
        assert found["oov"].distance == pytest.approx(unseen[1] - unseen[0])
    known = [[[v for v in row if v] for row in side] for side in sides]
    known = [[row for row in side if row] for side in known]
    if all(known):
        shares = []
        for side in known:
            of: dict[int, float] = {}
            for row in side:
                for value in row:
                    of[value] = of.get(value, 0.0) + 1 / len(row) / len(side)
            shares.append(of)
        assert found["linf"].distance == pytest.approx(_farthest(*shares))
        assert found["linf"].rows == len(known[1])


def test_numbers_are_counted_between_the_training_deciles() -> None:
    rng = np.random.default_rng(0)
    training = rng.normal(size=(4000, 1)).astype(np.float32)
    logged = (1.5 * rng.normal(size=(3000, 1)) + 0.5).astype(np.float32)
    cuts, counted = training[::2, 0], training[1::2, 0]
    edges = np.sort(cuts)[[math.ceil(len(cuts) * k / 10) - 1 for k in range(1, 10)]]

    def classes(values: np.ndarray) -> np.ndarray:
        at = [np.mean(values == e) for e in edges]
        ends = [-np.inf, *edges, np.inf]
        between = [
            np.mean((values > low) & (values < high))
            for low, high in zip(ends[:-1], ends[1:], strict=True)
        ]
        return np.array(between + at)

    found = _by_kind(number_measures(training, logged))
    change = np.abs(classes(logged[:, 0]) - classes(counted))
    assert found["linf"].distance == pytest.approx(change.max())
    assert found["linf"].worst.low == pytest.approx(edges[8])  # the wider one gains in the tail
    assert found["linf"].worst.high == np.inf
    assert found["missing"].distance == 0


def test_few_distinct_numbers_are_told_apart_though_all_deciles_are_one() -> None:
    training = np.where(np.arange(1000) % 20 < 19, 1.0, 2.0)[:, np.newaxis].astype(np.float32)
    logged = np.where(np.arange(1000) % 20 < 10, 1.0, 2.0)[:, np.newaxis].astype(np.float32)
    worst = _by_kind(number_measures(training, logged))["linf"].worst
    assert (worst.low, worst.high) in ((1.0, 1.0), (1.0, np.inf))
    assert abs(worst.logged - worst.training) == pytest.approx(0.45, abs=0.051)


def test_the_encoded_zero_of_a_number_is_missing_and_of_a_vector_only_all_zeros() -> None:
    training = np.ones((10, 2), np.float32)
    logged = np.array([[0, 0]] * 3 + [[0, 1]] * 7, np.float32)
    found = _by_kind(number_measures(training, logged))
    assert found["missing"].distance == pytest.approx(0.3)
    assert found["linf"].distance == pytest.approx(1.0)
    assert found["linf"].worst.component == 0
    assert found["linf"].rows == 7


def test_a_side_without_values_has_no_distance_and_no_anomaly() -> None:
    nothing = np.full(5, -1)
    found = _by_kind(id_measures(np.arange(5), nothing, table_rows=5, vocabulary=False))
    assert found["missing"].distance == 1.0
    assert found["linf"].distance is None and not found["linf"].exceeds(0.0, 0.01)
    found = _by_kind(number_measures(np.zeros((6, 1)), np.ones((4, 1))))
    assert found["missing"].distance == -1.0
    assert found["linf"].distance is None


def test_a_rise_of_unseen_values_counts_and_a_fall_does_not() -> None:
    many, few = np.zeros(4000, int), np.ones(4000, int)
    rise = _by_kind(id_measures(few, many, table_rows=2, vocabulary=True))["oov"]
    fall = _by_kind(id_measures(many, few, table_rows=2, vocabulary=True))["oov"]
    assert rise.distance == 1.0 and rise.exceeds(0.05, 0.01)
    assert fall.distance == -1.0 and not fall.exceeds(0.05, 0.01)
    gone = _by_kind(id_measures(np.full(4000, -1), few, table_rows=2, vocabulary=True))["missing"]
    assert gone.distance == -1.0 and gone.exceeds(0.05, 0.01)


@given(
    seed=st.integers(0, 10_000),
    values=st.integers(1, 200),
    concentration=st.floats(0.02, 5.0),
    rows=st.integers(5, 800),
    train_rows=st.integers(5, 3000),
)
@settings(max_examples=120, deadline=None, derandomize=True)
def test_two_samples_of_one_distribution_make_no_anomaly(
    seed: int, values: int, concentration: float, rows: int, train_rows: int
) -> None:
    """With limits of 0, whatever the distribution and the sizes; ids, lists and numbers."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(values + 2, concentration)) + 1e-12
    shares /= shares.sum()

    def draw(count: int) -> np.ndarray:
        return rng.choice(values + 2, count, p=shares) - 1

    def lists(count: int) -> Bag:
        return _flat([(draw(k) + 1).tolist() for k in rng.integers(0, 4, count)])

    def numbers(count: int) -> np.ndarray:
        return np.stack([draw(count) + 1, rng.normal(size=count)], axis=1).astype(np.float32)

    size = values + 2
    found = [
        *id_measures(draw(train_rows), draw(rows), table_rows=size, vocabulary=True),
        *bag_measures(lists(train_rows), lists(rows), table_rows=size, vocabulary=True),
        *number_measures(numbers(train_rows), numbers(rows)),
    ]
    assert [m.kind for m in found if m.exceeds(0.0, 1e-4)] == []


@pytest.mark.parametrize("distance", [0.0, 0.1])
def test_a_true_distance_at_the_limit_is_called_one_no_more_often_than_delta(
    distance: float,
) -> None:
    """The allowance holds around the limit, not only around equal distributions."""
    rng = np.random.default_rng(1)
    p = np.array([0.5, 0.3, 0.2])
    q = p + np.array([distance, -distance, 0.0])
    delta, repeats, called = 0.2, 400, 0
    for _ in range(repeats):
        sides = rng.choice(3, 300, p=p), rng.choice(3, 200, p=q)
        measure = id_measures(*sides, table_rows=3, vocabulary=False)[-1]
        called += measure.exceeds(distance, delta)
    assert called <= delta * repeats


def test_a_change_beyond_limit_and_allowance_is_called_one() -> None:
    """The allowance is no licence: with 10,000 rows it is a few hundredths."""
    rng = np.random.default_rng(2)
    training = rng.choice(4, 100_000, p=[0.4, 0.3, 0.2, 0.1])
    logged = rng.choice(4, 10_000, p=[0.2, 0.3, 0.2, 0.3])
    measure = id_measures(training, logged, table_rows=4, vocabulary=False)[-1]
    assert measure.allowance(3e-4) < 0.03
    assert measure.exceeds(0.1, 3e-4)
    prices = rng.lognormal(size=(100_000, 1)).astype(np.float32)
    dearer = 2 * rng.lognormal(size=(10_000, 1)).astype(np.float32)
    assert number_measures(prices, dearer)[-1].exceeds(0.1, 3e-4)


def test_the_allowance_shrinks_with_rows_and_does_not_grow_with_many_values() -> None:
    def allowance(rows: int, values: int) -> float:
        logged = np.arange(rows) % values
        return id_measures(logged, logged, table_rows=values, vocabulary=False)[-1].allowance(1e-3)

    assert allowance(100, 3) > allowance(1000, 3) > allowance(10_000, 3)
    assert allowance(100, 3) == pytest.approx(10 * allowance(10_000, 3))
    assert allowance(100, 10**6) == allowance(100, 10**9) > allowance(100, 3)
