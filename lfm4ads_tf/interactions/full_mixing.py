"""Mixing of tokens by one matrix over all of them."""

from __future__ import annotations

import tensorflow as tf
import tf_keras

from lfm4ads_tf.interactions.expert_bank import constant
from lfm4ads_tf.precision import product
from lfm4ads_tf.rebuildable import Rebuildable
from lfm4ads_tf.seeding import glorot

LARGEST = 4_000_000
"""Weights above which it is refused."""


class FullMixing(Rebuildable, tf_keras.layers.Layer):
    """(W + I) vec(X) with W (N D, N D).

    Args:
        seed: Seed of the initial weights.
    """

    def __init__(self, *, seed: int = 0, name: str = "full_mixing") -> None:
        super().__init__(name=name)
        self.seed = seed

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes the weights for the tokens' number and width."""
        width = int(input_shape[0]) * int(input_shape[-1])
        initial = glorot(self.seed, self.name)((width, width))
        self.kernel = self.add_weight(
            name="kernel", shape=initial.shape, initializer=constant(initial)
        )
        super().build(input_shape)

    def call(self, tokens: tf.Tensor) -> tf.Tensor:
        """Mixes.

        Args:
            tokens: Token by token, (N, B, D).

        Returns:
            (N, B, D).
        """
        count, width = int(tokens.shape[0]), int(tokens.shape[2])
        flat = tf.reshape(tf.transpose(tokens, [1, 0, 2]), [-1, count * width])  # (B, N D)
        made = tf.reshape(product(flat, self.kernel), [-1, count, width])
        return tokens + tf.transpose(made, [1, 0, 2])  # (N, B, D)
