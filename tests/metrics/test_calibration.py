"""Calibration in the large."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.metrics import calibration


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 1.0))
def test_is_the_ratio_of_means_and_scales_with_predictions(seed: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    labels, probabilities = rng.integers(0, 2, 50), rng.random(50)
    labels[0] = 1
    value = calibration(labels, probabilities)
    assert value == pytest.approx(probabilities.mean() / labels.mean())
    assert calibration(labels, factor * probabilities) == pytest.approx(factor * value)


def test_leaves_out_unlabelled_rows() -> None:
    assert calibration([1.0, np.nan, 0.0], [0.8, 0.9, 0.4]) == pytest.approx(1.2)


def test_is_none_without_a_positive() -> None:
    assert calibration([0, 0], [0.1, 0.2]) is None
    assert calibration([np.nan], [0.1]) is None


def test_refuses_logits() -> None:
    with pytest.raises(UserError, match="between 0 and 1"):
        calibration([0, 1], [-1.0, 2.0])
