"""The calibration curve against scikit-learn and by its own sums."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve as sklearn_curve

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.metrics import calibration_curve


def test_equals_scikit_learn_without_ties() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.permutation(np.linspace(0.001, 0.999, 1000))
    labels = (rng.random(1000) < probabilities).astype(int)
    curve = calibration_curve(labels, probabilities, bins=10)
    label, prediction = sklearn_curve(labels, probabilities, n_bins=10, strategy="quantile")
    np.testing.assert_allclose(curve["label"], label)
    np.testing.assert_allclose(curve["prediction"], prediction)
    np.testing.assert_array_equal(curve["rows"], 100)


@given(st.integers(0, 2**32 - 1), st.integers(0, 80), st.integers(1, 15), st.integers(1, 9))
def test_keeps_the_sums_and_does_not_depend_on_row_order(
    seed: int, rows: int, bins: int, levels: int
) -> None:
    rng = np.random.default_rng(seed)
    labels, probabilities = rng.integers(0, 2, rows), rng.integers(0, levels, rows) / levels
    curve = calibration_curve(labels, probabilities, bins)
    assert len(curve["rows"]) == min(bins, rows)
    assert curve["rows"].sum() == rows
    assert rows == 0 or np.ptp(curve["rows"]) <= 1
    assert (curve["rows"] * curve["label"]).sum() == pytest.approx(labels.sum())
    assert (curve["rows"] * curve["prediction"]).sum() == pytest.approx(probabilities.sum())
    assert (np.diff(curve["prediction"]) >= -1e-12).all()
    order = rng.permutation(rows)
    again = calibration_curve(labels[order], probabilities[order], bins)
    for name in curve:
        np.testing.assert_allclose(again[name], curve[name], atol=1e-12)


def test_leaves_out_unlabelled_rows() -> None:
    curve = calibration_curve([0.0, np.nan, 1.0], [0.2, 0.9, 0.6], bins=2)
    np.testing.assert_array_equal(curve["prediction"], [0.2, 0.6])
    np.testing.assert_array_equal(curve["label"], [0.0, 1.0])


def test_refuses_no_bins() -> None:
    with pytest.raises(UserError, match="at least one bin"):
        calibration_curve([0, 1], [0.1, 0.2], bins=0)
