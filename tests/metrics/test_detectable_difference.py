"""The smallest detectable difference against the test's own power, drawn and in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lfm4ads_tf.metrics.detectable_difference import detectable_difference


def _found(pairs: int, deviation: float, level: float, power: float) -> float:
    found = detectable_difference(deviation, pairs, level=level, power=power)
    assert found is not None
    return found


@pytest.mark.parametrize("pairs", [2, 3, 5, 12])
@pytest.mark.parametrize("power", [0.5, 0.8])
def test_a_t_test_finds_it_as_often_as_said(pairs: int, power: float) -> None:
    """40,000 drawn experiments: the share deviates by 5 standard errors at most."""
    draws, deviation = 40_000, 0.3
    difference = _found(pairs, deviation, 0.05, power)
    drawn = np.random.default_rng(pairs).normal(difference, deviation, (draws, pairs))
    share = float((stats.ttest_1samp(drawn, 0.0, axis=1).pvalue < 0.05).mean())
    assert share == pytest.approx(power, abs=5 * np.sqrt(power * (1 - power) / draws))


def test_two_pairs_in_closed_form() -> None:
    """With one degree of freedom the power is a mean of normal tails over V = Z^2."""
    difference = _found(2, 1.0, 0.05, 0.8)
    bound = np.tan(np.pi * 0.475)  # the 97.5 % point of Cauchy's distribution
    # T = (Z + c) / |W|: beyond the bound when Z + c > bound |W|, or below the other one.
    count = 200_000
    width = stats.norm.ppf(0.5 + (np.arange(count) + 0.5) / count / 2)  # |W| by equal chances
    shift = difference * np.sqrt(2.0)
    tails = stats.norm.cdf(shift - bound * width) + stats.norm.cdf(-shift - bound * width)
    assert float(tails.mean()) == pytest.approx(0.8, abs=1e-5)


def test_many_pairs_meet_the_normal_approximation() -> None:
    pairs = 4000
    normal = (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) / np.sqrt(pairs)
    # t with n degrees of freedom differs from the normal by O(1 / n), relative.
    assert _found(pairs, 1.0, 0.05, 0.8) == pytest.approx(normal, rel=3 / pairs)


@given(st.integers(2, 40), st.floats(1e-6, 1e3), st.floats(0.1, 0.9))
def test_is_a_scale_and_falls_with_more_pairs_and_less_power(
    pairs: int, deviation: float, power: float
) -> None:
    found = _found(pairs, deviation, 0.05, power)
    assert found == pytest.approx(deviation * _found(pairs, 1.0, 0.05, power), rel=1e-9)
    assert found > _found(pairs + 1, deviation, 0.05, power)
    assert found < _found(pairs, deviation, 0.05, power + 0.05)


def test_one_pair_detects_nothing() -> None:
    assert detectable_difference(0.1, 1) is None
    assert detectable_difference(0.0, 3) == 0.0
