from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm4ads_tf.tuning.held_out import hold_last, noise_of, smallest_class


@given(
    st.lists(st.integers(1, 400), min_size=2, max_size=12),
    st.floats(0.02, 0.98),
    st.integers(0, 2**16),
)
def test_as_few_of_the_last_periods_as_a_score_needs(
    sizes: list[int], rate: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    period = np.repeat(3 * np.arange(len(sizes)), sizes)
    labels = (rng.random((len(period), 2)) < rate).astype(np.float32)
    labels[rng.random(labels.shape) < 0.1] = np.nan
    held = hold_last(period, labels)
    values = np.unique(period)
    count = len(np.unique(period[held]))
    assert np.array_equal(held, period >= values[-count])  # whole periods, the last ones
    least, most = math.ceil(len(values) / 5), max(1, len(values) // 2)
    assert least <= count <= most

    def enough(k: int) -> bool:
        last = period >= values[-k]
        return bool(last.mean() >= 0.08 and smallest_class(labels[last]) >= 100)

    assert not any(enough(k) for k in range(least, count))
    assert enough(count) or count == most


@given(st.integers(1, 200))
def test_of_a_single_period_the_last_fifth(count: int) -> None:
    held = hold_last(np.zeros(count), np.zeros((count, 1)))
    assert held.sum() == max(1, count // 5) and held[-held.sum() :].all()


def test_noise_of_the_rarer_classes() -> None:
    labels = np.full((1000, 3), np.nan)
    labels[:, 0] = np.arange(1000) < 100
    labels[:500, 1] = np.arange(500) < 475  # 25 of the rarer class
    assert smallest_class(labels[:, :2]) == 25
    assert noise_of(labels) == pytest.approx(0.025 * (1 / 10 + 1 / 5) / 2)
    assert noise_of(np.ones((9, 1))) == 1.0  # nothing could be told apart


def test_few_classes() -> None:
    assert smallest_class(np.zeros((4, 0))) == 0
    assert smallest_class(np.array([[1.0, np.nan], [0.0, 1.0]])) == 0
