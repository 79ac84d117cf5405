"""Log loss against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import log_loss

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.metrics import logloss

pytestmark = pytest.mark.processor


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_scikit_learn(dtype: type) -> None:
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(0, 2, 5000), rng.random(5000).astype(dtype)
    probabilities[:2], labels[:2] = [0.0, 1.0], [1, 0]  # wrong and certain
    assert logloss(labels, probabilities) == pytest.approx(
        log_loss(labels, probabilities), rel=1e-6 if dtype is np.float32 else 1e-12
    )


def test_leaves_out_unlabelled_rows() -> None:
    assert logloss([1.0, np.nan, 0.0], [0.8, 0.1, 0.4]) == pytest.approx(
        -(np.log(0.8) + np.log(0.6)) / 2
    )
    assert logloss([np.nan], [0.3]) is None


def test_one_class_has_a_loss() -> None:
    assert logloss([1, 1], [0.5, 0.5]) == pytest.approx(np.log(2))


@pytest.mark.parametrize("wrong", [-0.1, 1.1, np.nan])
def test_refuses_what_is_no_probability(wrong: float) -> None:
    with pytest.raises(UserError):
        logloss([0, 1], [0.5, wrong])
