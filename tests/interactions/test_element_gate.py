"""Element-wise gates against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.interactions.element_gate import ElementGate
from tests.rounding import assert_close

pytestmark = pytest.mark.processor

B, R, M, H, G = 6, 3, 4, 5, 2


@pytest.mark.parametrize("vector", [False, True])
def test_every_dimension_has_a_softmax_over_the_experts(vector: bool) -> None:
    rng = np.random.default_rng(2)
    prior, outputs = rng.normal(size=(B, R)), rng.normal(size=(B, M, H))
    gate = ElementGate(G, vector=vector, seed=1)
    given = [tf.constant(prior, tf.float32), tf.constant(outputs, tf.float32)]
    found = gate(given)
    width = 1 if vector else H
    assert gate.kernel.shape == (R, G * M * width)
    scores = (prior @ gate.kernel.numpy().astype(np.float64)).reshape(B, G, M, width)
    weights = np.exp(scores) / np.exp(scores).sum(axis=2, keepdims=True)
    terms = weights * outputs[:, None]  # (B, G, M, h)
    assert_close(found, terms.sum(axis=2), terms=R + M + 4, magnitude=np.abs(terms).sum(axis=2))
    asked = np.array([[1, 0], [0, 0], [1, 1], [0, 1], [1, 0], [0, 1]])
    some = gate([*given, tf.constant(asked)])
    np.testing.assert_array_equal(some, np.take_along_axis(found.numpy(), asked[..., None], axis=1))
    for g in range(G):
        one, magnitude = gate([*given], gate=g)[:, 0], np.abs(terms[:, g]).sum(axis=1)
        assert_close(one, terms[:, g].sum(axis=1), terms=R + M + 4, magnitude=magnitude)


def test_a_gates_weights_are_those_of_its_number() -> None:
    few, more = ElementGate(1, seed=3), ElementGate(3, seed=3)
    for gate in (few, more):
        gate([tf.ones([1, R]), tf.ones([1, M, H])])
    np.testing.assert_array_equal(few.kernel, more.kernel[:, : M * H])
