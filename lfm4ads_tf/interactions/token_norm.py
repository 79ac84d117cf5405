"""Layer normalisation of tokens."""

from __future__ import annotations

import tensorflow as tf
import tf_keras

from lfm4ads_tf.rebuildable import Rebuildable


class TokenNorm(Rebuildable, tf_keras.layers.Layer):
    """LN(x) = (1 + g) * (x - mean) / sqrt(var + eps) + b over the width of each token.

    g and b (D,) are shared by all tokens and start at zero; the factor is kept less 1, so that
    weight decay draws it to 1.

    Args:
        epsilon: eps.
    """

    def __init__(self, *, epsilon: float = 1e-5, name: str = "norm") -> None:
        super().__init__(name=name)
        self.epsilon = epsilon

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes the weights for the tokens' width."""
        width = (int(input_shape[-1]),)
        self.scale = self.add_weight(name="scale", shape=width, initializer="zeros")
        self.bias = self.add_weight(name="bias", shape=width, initializer="zeros")
        super().build(input_shape)

    def call(self, tokens: tf.Tensor) -> tf.Tensor:
        """Normalises.

        Args:
            tokens: (N, B, D).

        Returns:
            (N, B, D).
        """
        apart = tokens - tf.reduce_mean(tokens, axis=-1, keepdims=True)
        variance = tf.reduce_mean(tf.square(apart), axis=-1, keepdims=True)
        factor = tf.math.rsqrt(variance + self.epsilon)
        return apart * factor * (1.0 + self.scale) + self.bias
