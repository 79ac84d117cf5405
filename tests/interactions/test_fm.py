from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.interactions.fm import FM
from tests.rounding import assert_close

pytestmark = pytest.mark.processor


def pair_sum(vectors: np.ndarray) -> np.ndarray:
    """sum over pairs f < g of v_f * v_g, (B, dim)."""
    pairs = itertools.combinations(range(vectors.shape[1]), 2)
    return np.sum([vectors[:, f] * vectors[:, g] for f, g in pairs], axis=0)


def test_one_width_is_the_sum_over_all_pairs() -> None:
    fields = np.random.default_rng(0).normal(size=(5, 6, 4)).astype(np.float32)
    layer = FM(4)
    assert_close(layer([tf.constant(fields)]), pair_sum(fields), terms=24)
    assert layer.trainable_variables == []


def test_other_widths_are_projected_first() -> None:
    rng = np.random.default_rng(1)
    groups = [rng.normal(size=(5, f, w)).astype(np.float32) for f, w in ((3, 4), (2, 7), (1, 2))]
    layer = FM(4, seed=3)
    found = layer([tf.constant(g) for g in groups])
    kernels = {v.shape[0]: v.numpy() for v in layer.trainable_variables}
    assert sorted(kernels) == [2, 7]
    projected = [groups[0], groups[1] @ kernels[7], groups[2] @ kernels[2]]
    assert_close(found, pair_sum(np.concatenate(projected, axis=1)), terms=24)


@pytest.mark.parametrize("fields", [1, 2])
def test_few_fields(fields: int) -> None:
    values = np.random.default_rng(2).normal(size=(3, fields, 4)).astype(np.float32)
    expected = np.zeros((3, 4)) if fields == 1 else values[:, 0] * values[:, 1]
    assert_close(
        FM(4)([tf.constant(values)]), expected, terms=8, magnitude=np.square(values).sum(axis=1)
    )
