"""Tokens that are equal slices of all fields together."""

from __future__ import annotations

import tensorflow as tf
import tf_keras

from lfm4ads_tf.interactions.expert_bank import constant, stacked_glorot
from lfm4ads_tf.precision import product
from lfm4ads_tf.rebuildable import Rebuildable


class SlicedTokens(Rebuildable, tf_keras.layers.Layer):
    """x_n = W_n e[n w : (n + 1) w] + b_n with e all fields side by side, zeros behind the end.

    Slices go through the fields, wherever those begin: the loose form, for comparison.

    Args:
        count: Number of tokens N; w is the width of e divided by N, rounded up.
        dim: Width D of a token.
        seed: Seed of the initial weights.

    Source: RankMixer (arXiv 2507.15551), tokenisation as it is printed.
    """

    def __init__(self, count: int, dim: int, *, seed: int = 0, name: str = "sliced_tokens") -> None:
        super().__init__(name=name)
        self.count = count
        self.dim = dim
        self.seed = seed

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes the weights for the width of all fields."""
        width = -(-int(input_shape[-1]) // self.count)
        names = [f"{self.name}/token_{n}" for n in range(self.count)]
        initial = stacked_glorot(self.seed, names, (width, self.dim))
        self.kernel = self.add_weight(
            name="kernel", shape=initial.shape, initializer=constant(initial)
        )  # (N, w, D)
        shape = (self.count, 1, self.dim)
        self.bias = self.add_weight(name="bias", shape=shape, initializer="zeros")
        super().build(input_shape)

    def call(self, stream: tf.Tensor) -> tf.Tensor:
        """Makes the tokens.

        Args:
            stream: e, (B, d).

        Returns:
            Token by token, (N, B, D).
        """
        width = int(self.kernel.shape[1])
        more = self.count * width - int(stream.shape[-1])
        filled = tf.pad(stream, [[0, 0], [0, more]])
        slices = tf.reshape(filled, [-1, self.count, width])  # (B, N, w)
        return product(tf.transpose(slices, [1, 0, 2]), self.kernel) + self.bias
