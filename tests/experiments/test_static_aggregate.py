"""The closed form beside the loop over events."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lfm4ads_tf.experiments.static_aggregate import StaticAggregate, later_events
from tests.rounding import assert_close


def by_loop(user: np.ndarray, activations: np.ndarray, users: int) -> np.ndarray:
    sums = np.zeros((users, activations.shape[1]))
    for u, activation in zip(user, activations, strict=True):
        sums[u] = 0.99 * sums[u] + activation
    mean = sums.mean(axis=1, keepdims=True)
    return (sums - mean) / np.sqrt(sums.var(axis=1, keepdims=True) + 1e-5)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 60))
def test_equals_the_loop_in_any_batches(user: list[int], batch: int) -> None:
    users = np.array(user, np.int32)
    activations = np.random.default_rng(len(user)).normal(size=(len(user), 6)).astype(np.float32)
    aggregate = StaticAggregate(users, 6, 6)
    for start in range(0, len(user), batch):
        aggregate.add(start, activations[start : start + batch])
    found = aggregate.read()
    assert_close(found, by_loop(users, activations, 6), terms=24)
    assert not found[5].any(), "a user without events"


@given(st.lists(st.integers(0, 5), max_size=40))
def test_later_events(user: list[int]) -> None:
    found = later_events(np.array(user, np.int32))
    assert found.tolist() == [user[k + 1 :].count(u) for k, u in enumerate(user)]
