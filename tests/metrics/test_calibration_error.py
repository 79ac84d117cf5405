"""The calibration error against scikit-learn's curve and by its own properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve as sklearn_curve

from lfm4ads_tf.metrics import calibration_error


def test_is_the_mean_gap_of_scikit_learns_curve() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.permutation(np.linspace(0.01, 0.9, 2000))
    labels = (rng.random(2000) < probabilities**1.5).astype(float)
    label, prediction = sklearn_curve(labels, probabilities, n_bins=10, strategy="quantile")
    expected = np.abs(label - prediction).mean()  # bins of 200 rows each
    assert calibration_error(labels, probabilities) == pytest.approx(expected, abs=1e-9)
    assert expected > 0.05


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_is_at_least_the_error_in_the_large_and_equal_for_one_bin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, probabilities = rng.integers(0, 2, 40).astype(float), rng.random(40)
    labels[:5] = np.nan
    large = abs(np.nanmean(labels) - probabilities[5:].mean())
    assert calibration_error(labels, probabilities, bins=1) == pytest.approx(large)
    error = calibration_error(labels, probabilities, bins=4)
    assert error is not None and large - 1e-12 <= error <= 1


def test_is_none_without_a_label_and_zero_for_right_predictions() -> None:
    assert calibration_error([np.nan], [0.3]) is None
    assert calibration_error([0, 1, 0, 1], [0.0, 1.0, 0.0, 1.0], bins=2) == 0
