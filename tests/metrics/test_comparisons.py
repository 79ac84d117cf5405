"""The paired comparison against SciPy's paired t-test."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from lfm4ads_tf.metrics import PairedComparison, paired_comparison


@given(st.integers(0, 2**32 - 1), st.integers(2, 10), st.floats(-0.02, 0.02))
def test_equals_scipy(seed: int, seeds: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    baseline = rng.normal(0.74, 0.01, seeds)
    method = baseline + shift + rng.normal(0.0, 0.002, seeds)
    order = rng.permutation(seeds)  # paired by seed, not by position
    result = paired_comparison(
        {int(s): method[s] for s in order}, {s: baseline[s] for s in range(seeds)}
    )
    expected = ttest_rel(method, baseline)
    assert result.p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)
    assert result.diff_mean == pytest.approx((method - baseline).mean())
    assert result.diff_sd == pytest.approx((method - baseline).std(ddof=1))
    assert result.seeds == seeds


def test_missing_values_and_unshared_seeds_drop_the_pair() -> None:
    method = {0: 0.70, 1: None, 2: 0.72, 3: 0.9, 5: float("nan")}
    baseline = {0: 0.69, 1: 0.60, 2: 0.70, 4: 0.1, 5: 0.6}
    result = paired_comparison(method, baseline)
    assert result.seeds == 2
    assert result.diff_mean == pytest.approx(0.015)


def test_one_seed_has_no_spread_and_no_seed_no_difference() -> None:
    result = paired_comparison({3: 0.75}, {3: 0.70})
    assert result.diff_mean == pytest.approx(0.05)
    assert (result.diff_sd, result.p, result.seeds) == (None, None, 1)
    assert paired_comparison({0: None}, {0: 0.7}) == PairedComparison(None, None, None, 0)


def test_equal_differences() -> None:
    values = {0: 0.7, 1: 0.71, 2: 0.73}
    assert paired_comparison(values, values).p == 1.0
    # These differences are 0.01 but for rounding in the last place.
    assert paired_comparison({s: v + 0.01 for s, v in values.items()}, values).p == 0.0
