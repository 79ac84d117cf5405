"""GAUC against a loop over users."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.metrics import auc, gauc


def by_loop(labels: np.ndarray, scores: np.ndarray, users: np.ndarray) -> float | None:
    """GAUC as defined, one user at a time, with scikit-learn's AUC."""
    total, rows = 0.0, 0
    for user in np.unique(users):
        mine = (users == user) & ~np.isnan(labels)
        if len(np.unique(labels[mine])) == 2:
            total += mine.sum() * roc_auc_score(labels[mine], scores[mine])
            rows += mine.sum()
    return total / rows if rows else None


@given(st.integers(0, 2**32 - 1), st.integers(1, 200), st.integers(1, 12), st.integers(1, 20))
def test_equals_a_loop_over_users(seed: int, rows: int, users: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice([0.0, 1.0, np.nan], rows, p=[0.5, 0.35, 0.15])
    scores = rng.integers(0, levels, rows) / levels
    user = rng.integers(0, users, rows)
    expected = by_loop(labels, scores, user)
    value = gauc(labels, scores, user)
    if expected is None:
        assert value is None
    else:
        assert value == pytest.approx(expected, abs=1e-9)


def test_user_keys_may_be_strings_and_one_user_gives_the_auc() -> None:
    rng = np.random.default_rng(3)
    labels, scores = rng.integers(0, 2, 300), rng.normal(size=300)
    users = rng.integers(0, 20, 300)
    names = np.array([f"user {u}" for u in users])
    assert gauc(labels, scores, names) == pytest.approx(gauc(labels, scores, users), abs=1e-12)
    assert gauc(labels, scores, np.zeros(300)) == pytest.approx(auc(labels, scores), abs=1e-12)


def test_ignores_differences_between_users() -> None:
    rng = np.random.default_rng(4)
    labels, users = rng.integers(0, 2, 400), rng.integers(0, 10, 400)
    scores = rng.integers(0, 16, 400) / 16
    shifted = scores + 100.0 * rng.normal(size=10).round(2)[users].round()
    assert gauc(labels, shifted, users) == pytest.approx(gauc(labels, scores, users), abs=1e-12)


def test_is_none_without_a_user_of_both_classes() -> None:
    assert gauc([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4], [1, 1, 2, 2]) is None
    assert gauc([], [], []) is None
    assert gauc([np.nan, 1.0], [0.1, 0.2], [1, 1]) is None


def test_refuses_bad_input() -> None:
    with pytest.raises(UserError, match="as long as"):
        gauc([0, 1], [0.1, 0.2], [1])
    with pytest.raises(UserError, match="finite"):
        gauc([0, 1], [0.1, np.nan], [1, 1])
