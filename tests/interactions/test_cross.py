from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.interactions.cross import Cross
from tests.rounding import assert_close

pytestmark = pytest.mark.processor

D = 6


def inputs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x0, x = rng.normal(size=(2, 4, D)).astype(np.float32)
    return x0, x


@pytest.mark.parametrize("rank", [None, 2])
def test_equals_the_formula(rank: int | None) -> None:
    x0, x = inputs()
    layer = Cross(rank, seed=1, name="cross_1")
    layer((tf.constant(x0), tf.constant(x)))
    rng = np.random.default_rng(5)
    for variable in layer.trainable_variables:  # a bias of zeros would hide an error
        variable.assign(rng.normal(size=variable.shape))
    weights = {v.name.split(":")[0].split("cross_1/")[-1]: v.numpy() for v in layer.weights}
    product = x if rank is None else x @ weights["down/kernel"]
    expected = x0 * (product @ weights["kernel/kernel"] + weights["kernel/bias"]) + x
    sizes = {name: np.abs(value) for name, value in weights.items()}
    product = np.abs(x) if rank is None else np.abs(x) @ sizes["down/kernel"]
    size = np.abs(x0) * (product @ sizes["kernel/kernel"] + sizes["kernel/bias"]) + np.abs(x)
    found = layer((tf.constant(x0), tf.constant(x)))
    assert_close(found, expected, terms=2 * D + 4, magnitude=size)


@pytest.mark.parametrize(("rank", "count"), [(None, D * D + D), (2, 2 * D * 2 + D)])
def test_parameters(rank: int | None, count: int) -> None:
    layer = Cross(rank)
    layer(tuple(tf.constant(x) for x in inputs()))
    assert sum(int(tf.size(v)) for v in layer.trainable_variables) == count


def test_seed_and_name_settle_the_weights() -> None:
    def kernel(seed: int, name: str) -> np.ndarray:
        layer = Cross(seed=seed, name=name)
        layer(tuple(tf.constant(x) for x in inputs()))
        return layer.trainable_variables[0].numpy()

    assert np.array_equal(kernel(1, "cross_1"), kernel(1, "cross_1"))
    assert not np.array_equal(kernel(1, "cross_1"), kernel(1, "cross_2"))
    assert not np.array_equal(kernel(1, "cross_1"), kernel(2, "cross_1"))
