from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.interactions.information_transfer import InformationTransfer
from tests.rounding import assert_close

pytestmark = pytest.mark.processor

B = 5


def filled(tasks: int, width: int) -> tuple[InformationTransfer, np.ndarray]:
    """The layer with random weights: zero biases would hide errors; and what it reads."""
    rng = np.random.default_rng(tasks)
    vectors = rng.normal(size=(B, tasks, width)).astype(np.float32)
    layer = InformationTransfer(seed=1)
    layer(tf.constant(vectors))
    for variable in layer.trainable_variables:
        variable.assign(rng.normal(0, 0.5, size=variable.shape))
    return layer, vectors


@given(tasks=st.integers(1, 4), width=st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_each_vector_attends_to_its_own_and_to_the_one_before(tasks: int, width: int) -> None:
    layer, vectors = filled(tasks, width)
    found = layer(tf.constant(vectors))
    assert found.shape == (B, tasks, width)
    np.testing.assert_array_equal(found[:, 0], vectors[:, 0])
    for b in range(B):
        before = vectors[b, 0].astype(np.float64)
        for t in range(1, tasks):
            kernel, bias, attention = (v.numpy().astype(np.float64) for v in layer.steps[t - 1])
            told = np.maximum(before @ kernel + bias, 0)
            maps = np.split(attention, 3, axis=1)
            read = [vectors[b, t].astype(np.float64), told]
            scores = [(w @ maps[0]) @ (w @ maps[1]) / np.sqrt(width) for w in read]
            shares = np.exp(scores - np.max(scores))
            shares /= shares.sum()
            before = sum(a * (w @ maps[2]) for a, w in zip(shares, read, strict=True))
            size = [np.abs(w) for w in read]
            most = sum((m @ np.abs(maps[0])) @ (m @ np.abs(maps[1])) for m in size)
            magnitude = (1 + most) * sum(m @ np.abs(maps[2]) for m in size)
            assert_close(found[b, t], before, terms=20 * width * t, magnitude=magnitude)


def test_nothing_flows_back_from_a_task_to_those_behind_it() -> None:
    layer, vectors = filled(3, 4)
    read = tf.constant(vectors)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(read)
        handed = layer(read)
        totals = [tf.reduce_sum(handed[:, t]) for t in range(3)]
    for t, total in enumerate(totals):
        gradient = tape.gradient(total, read)
        assert [bool(np.any(gradient[:, k])) for k in range(3)] == [k <= t for k in range(3)]
        of_steps = [tape.gradient(total, kernel) for kernel, _, _ in layer.steps]
        assert [g is not None and bool(np.any(g)) for g in of_steps] == [k < t for k in range(2)]
