from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.interactions.dropout import Dropout


def masks(seed: int, name: str, steps: int) -> list[np.ndarray]:
    layer = Dropout(0.3, seed=seed, name=name)
    return [layer(tf.ones([8, 16]), training=True).numpy() for _ in range(steps)]


def test_masks_depend_on_seed_name_and_step() -> None:
    first = masks(1, "a", 3)
    for one, other in zip(first, masks(1, "a", 3), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], masks(2, "a", 1)[0])
    assert not np.array_equal(first[0], masks(1, "b", 1)[0])


def test_a_restored_layer_goes_on_with_the_next_mask(tmp_path: Path) -> None:
    expected = masks(1, "a", 5)
    layer = Dropout(0.3, seed=1, name="a")
    for _ in range(2):
        layer(tf.ones([8, 16]), training=True)
    path = tf.train.Checkpoint(layer=layer).write(str(tmp_path / "c"))
    again = Dropout(0.3, seed=1, name="a")
    tf.train.Checkpoint(layer=again).read(path).assert_consumed()
    for mask in expected[2:]:
        np.testing.assert_array_equal(again(tf.ones([8, 16]), training=True), mask)


def test_rate_and_scale() -> None:
    layer = Dropout(0.3, seed=0)
    out = layer(tf.ones([400, 100]), training=True).numpy()
    assert (out == 0).mean() == pytest.approx(0.3, abs=0.01)
    np.testing.assert_allclose(out[out != 0], 1 / 0.7, rtol=1e-6)
    np.testing.assert_array_equal(layer(tf.ones([4, 4])), np.ones((4, 4)))
    assert Dropout(0.0).variables == [] and layer.trainable_variables == []
