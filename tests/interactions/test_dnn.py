from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.interactions.dnn import DNN
from tests.rounding import assert_close

pytestmark = pytest.mark.processor


@pytest.mark.parametrize("activate_input", [False, True])
def test_pre_activations_equal_the_formula(activate_input: bool) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 7)).astype(np.float32)
    layer = DNN([6, 4, 3], activate_input=activate_input, seed=2, name="dnn")
    layer(tf.constant(x))
    for variable in layer.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    hidden, output = layer(tf.constant(x))
    value = np.maximum(x, 0) if activate_input else x
    assert len(hidden) == 3
    for k, found in enumerate(hidden):
        kernel, bias = (v.numpy() for v in layer.trainable_variables[2 * k : 2 * k + 2])
        expected = value @ kernel + bias
        assert_close(
            found, expected, terms=8, magnitude=np.abs(value) @ np.abs(kernel) + np.abs(bias)
        )
        assert (found.numpy() < 0).any()  # not yet rectified
        value = np.maximum(expected, 0)
    assert_close(output, value, terms=20)


def test_dropout_acts_in_training_only() -> None:
    x = tf.ones([64, 8])
    layer = DNN([32], dropout=0.5, seed=1, name="dnn")
    hidden, output = layer(x)
    np.testing.assert_array_equal(output, tf.nn.relu(hidden[0]))
    kept, dropped = layer(x, training=True)
    np.testing.assert_array_equal(kept[0], hidden[0])  # the named activation is never dropped
    lost = (dropped.numpy() == 0) & (output.numpy() > 0)
    assert 0.3 < lost.sum() / (output.numpy() > 0).sum() < 0.7
    np.testing.assert_allclose(dropped.numpy()[~lost], 2 * output.numpy()[~lost], rtol=1e-6)
