"""Recall at k against sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.metrics import recall_at_k


@given(st.integers(0, 2**32 - 1), st.integers(0, 12), st.integers(0, 6), st.integers(1, 30))
def test_equals_sets(seed: int, users: int, k: int, items: int) -> None:
    rng = np.random.default_rng(seed)
    retrieved = rng.integers(-1, items, (users, k)) * 1_000_003
    relevant = [rng.integers(0, items, rng.integers(0, 5)) * 1_000_003 for _ in range(users)]
    shares = [
        len(set(found) & set(wanted)) / len(set(wanted))
        for found, wanted in zip(retrieved.tolist(), map(list, relevant), strict=True)
        if wanted
    ]
    flat = np.concatenate([np.zeros(0, np.int64), *relevant])
    splits = np.r_[0, np.cumsum([len(one) for one in relevant])].astype(np.int64)
    for value in (recall_at_k(retrieved, relevant), recall_at_k(retrieved, flat, splits)):
        assert value == (pytest.approx(np.mean(shares)) if shares else None)


def test_known_value() -> None:
    retrieved = np.array([[1, 2, 3], [4, 5, -1], [7, 8, 9]])
    assert recall_at_k(retrieved, [[3, 10], [4], []]) == 0.75


def test_refuses_bad_input() -> None:
    retrieved = np.zeros((2, 3), dtype=np.int64)
    with pytest.raises(UserError, match="integer array"):
        recall_at_k(np.zeros((2, 3)), [[1], [2]])
    with pytest.raises(UserError, match="each user"):
        recall_at_k(retrieved, [[1]])
    with pytest.raises(UserError, match="each user"):
        recall_at_k(retrieved, np.arange(4), [0, 3, 2])
    with pytest.raises(UserError, match="must be integers"):
        recall_at_k(retrieved, [[1.5], [2.0]])
