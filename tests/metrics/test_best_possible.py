"""The best possible AUC against all pairs and against drawn labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.metrics import auc, best_possible_auc


@given(hnp.arrays(np.int64, st.integers(0, 40), elements=st.integers(0, 8)))
def test_equals_all_pairs(eighths: np.ndarray) -> None:
    p = eighths / 8
    weight = p[:, None] * (1 - p[None, :])
    np.fill_diagonal(weight, 0.0)
    wins = (p[:, None] > p[None, :]) + 0.5 * (p[:, None] == p[None, :])
    value = best_possible_auc(p)
    if weight.sum() == 0.0:
        assert value is None
    else:
        assert value == pytest.approx((weight * wins).sum() / weight.sum(), abs=1e-12)
        assert value >= 0.5 - 1e-12


def test_equals_the_mean_auc_of_drawn_labels() -> None:
    rng = np.random.default_rng(0)
    p = rng.beta(1.0, 5.0, 4000)
    drawn = [auc(rng.random(4000) < p, p) for _ in range(200)]
    error = np.std(drawn) / np.sqrt(len(drawn))
    assert best_possible_auc(p) == pytest.approx(np.mean(drawn), abs=4 * error)


def test_ends() -> None:
    assert best_possible_auc([0.0, 1.0, 1.0]) == 1.0
    assert best_possible_auc(np.full(1000, 0.3)) == pytest.approx(0.5, abs=1e-12)
    assert best_possible_auc([0.3]) is None
    assert best_possible_auc(np.ones(7)) is None


def test_refuses_what_is_no_probability() -> None:
    with pytest.raises(UserError, match="between 0 and 1"):
        best_possible_auc([0.5, 1.5])
    with pytest.raises(UserError, match="vector"):
        best_possible_auc([[0.5]])
