"""The tolerance that other tests use: it holds for float32 sums in any order, and can fail."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rounding import EPSILON, assert_close, probability_room, room


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 3000), scale=st.sampled_from([1e-6, 1.0, 1e6]), seed=st.integers(0, 999))
def test_sums_in_any_order_are_within_it(n: int, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = (rng.normal(size=n).astype(np.float32) for _ in range(2))
    products = np.float32(scale) * x * y
    one, other = np.float32(0), np.float32(0)
    for value in products:
        one += value
    for value in rng.permutation(products):
        other += value
    size = np.abs(products).sum(dtype=np.float64)
    assert_close([one], [other], terms=n, magnitude=size)
    assert_close([one], [products.sum()], terms=n, magnitude=size)
    with pytest.raises(AssertionError, match="1 of 1 differ"):
        assert_close([one + 3 * room(n, size)], [other], terms=n, magnitude=size)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_without_magnitudes_it_grows_with_the_largest_value(scale: float) -> None:
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(40, 64)) * scale, rng.normal(size=(64, 30))
    exact = left.astype(np.float32).astype(float) @ right.astype(np.float32).astype(float)
    found = left.astype(np.float32) @ right.astype(np.float32)
    assert_close(found, exact, terms=64)
    with pytest.raises(AssertionError, match="scores: 1 of 1200 differ"):
        wrong = exact.copy()
        wrong[3, 4] += 40 * EPSILON * np.abs(exact).max()
        assert_close(wrong, exact, terms=64, what="scores")


def test_what_is_not_a_number_and_other_shapes_differ() -> None:
    nan, inf = np.nan, np.inf
    assert_close([nan, inf, 1.0], [nan, inf, 1.0], terms=1)
    for found, expected in (([nan], [1.0]), ([1.0], [nan]), ([inf], [1.0]), ([inf], [-inf])):
        with pytest.raises(AssertionError):
            assert_close(found, expected, terms=1, magnitude=1.0)
    with pytest.raises(AssertionError):
        assert_close(np.ones((2, 1)), np.ones(2), terms=1)


@settings(max_examples=50, deadline=None)
@given(logit=st.floats(-80.0, 80.0), terms=st.integers(1, 100))
def test_a_probability_moves_less_than_its_logit(logit: float, terms: int) -> None:
    moved = logit + float(room(terms, abs(logit)))
    one, other = (1 / (1 + np.exp(-z)) for z in (logit, moved))
    assert abs(one - other) <= probability_room(terms, logit)
