"""A gate whose factors lie between 0 and 2."""

from __future__ import annotations

import tensorflow as tf
import tf_keras

from lfm4ads_tf.precision import dense
from lfm4ads_tf.rebuildable import Rebuildable
from lfm4ads_tf.seeding import glorot


class GateUnit(Rebuildable, tf_keras.layers.Layer):
    """gate(v) = 2 sigmoid(W_2 relu(W_1 v + b_1) + b_2), element by element.

    Around a score of 0 it lets through what it is multiplied with.

    Args:
        units: Width of the hidden layer.
        width: Number of factors.
        seed: Seed of the initial weights.

    Source: Chang et al., PEPNet: Parameter and Embedding Personalized Network for Infusing with
    Personalized Prior Information (KDD 2023), the Gate Neural Unit with gamma = 2.
    """

    def __init__(self, units: int, width: int, *, seed: int = 0, name: str = "gate") -> None:
        super().__init__(name=name)
        self.hidden = tf_keras.layers.Dense(
            units,
            activation="relu",
            kernel_initializer=glorot(seed, f"{name}/hidden"),
            name="hidden",
        )
        self.scores = tf_keras.layers.Dense(
            width,
            activation="sigmoid",
            kernel_initializer=glorot(seed, f"{name}/scores"),
            name="scores",
        )

    def call(self, read: tf.Tensor) -> tf.Tensor:
        """v (B, d) -> factors (B, width)."""
        return 2.0 * dense(self.scores, dense(self.hidden, read))
