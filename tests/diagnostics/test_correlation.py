from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import pearsonr

from lfm4ads_tf.diagnostics.correlation import pair_mean, token_correlations


def drawn(tokens: int, rows: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(tokens, rows, width))


def test_correlations_are_those_of_scipy() -> None:
    x = drawn(3, 40, 19)
    x[1] += x[0]
    x[2, :, 4] = 7.0  # a coordinate that does not vary counts for no pair
    found = token_correlations(x.astype(np.float32))
    for m, n in itertools.product(range(3), repeat=2):
        each = [
            abs(pearsonr(x[m, :, d], x[n, :, d]).statistic)
            for d in range(19)
            if d != 4 or 2 not in (m, n)
        ]
        assert found[m, n] == pytest.approx(np.mean(each), abs=1e-6)


def test_what_does_not_vary_has_no_correlation() -> None:
    x = drawn(3, 10, 4)
    x[1] = x[1, :1]
    rounded = x.astype(np.float32)
    rounded[1, ::2] *= 1 + np.float32(2**-23)
    for values in (x, rounded):
        found = token_correlations(values)
        assert np.isnan(found[1]).all() and np.isnan(found[:, 1]).all()
        assert pair_mean(found) == found[0, 2] > 0
    assert pair_mean(token_correlations(x[1:2])) is None
    assert np.isnan(token_correlations(x[:, :1])).all()  # of one row


def test_scaled_moved_and_mirrored_tokens_correlate_wholly() -> None:
    x = drawn(1, 10, 4)
    same = np.concatenate([x, 3.0 * x - 5.0, -x])
    assert token_correlations(same) == pytest.approx(np.ones((3, 3)))


def test_tokens_and_coordinates_may_change_places() -> None:
    x = drawn(4, 30, 20)
    found = token_correlations(x)
    order, places = (
        np.random.default_rng(0).permutation(4),
        np.random.default_rng(1).permutation(20),
    )
    assert token_correlations(x[:, :, places]) == pytest.approx(found)
    assert token_correlations(x[order]) == pytest.approx(found[np.ix_(order, order)])
    assert pair_mean(token_correlations(x[order])) == pytest.approx(pair_mean(found))


def test_of_independent_tokens_it_is_what_the_docstring_says() -> None:
    rows = 500
    found = pair_mean(token_correlations(drawn(5, rows, 100)))
    # |r| of 1,000 pairs, each half-normal with deviation 0.76 of its mean
    expected = math.sqrt(2 / (math.pi * rows))
    assert found == pytest.approx(expected, rel=5 * 0.76 / math.sqrt(1000))
