"""Mixing of tokens by attention."""

from __future__ import annotations

import tensorflow as tf
import tf_keras

from lfm4ads_tf.interactions.expert_bank import constant
from lfm4ads_tf.precision import product
from lfm4ads_tf.rebuildable import Rebuildable
from lfm4ads_tf.seeding import glorot


class TokenAttention(Rebuildable, tf_keras.layers.Layer):
    """[softmax(q_h K_h^T / sqrt(D/H)) V_h for the heads h] W_o with Q, K, V = X W_q, X W_k, X W_v.

    The four matrices (D, D) are shared by all tokens.

    Args:
        heads: H, a divisor of D.
        seed: Seed of the initial weights.

    Source: Vaswani et al., Attention Is All You Need (2017), without position; named by RankMixer
    (arXiv 2507.15551) as an alternative to its mixing.
    """

    def __init__(self, heads: int, *, seed: int = 0, name: str = "attention") -> None:
        super().__init__(name=name)
        self.heads = heads
        self.seed = seed

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes the weights for the tokens' width."""
        width = int(input_shape[-1])
        names = ("query", "key", "value", "output")
        each = [glorot(self.seed, f"{self.name}/{name}")((width, width)) for name in names]
        read = tf.concat(each[:3], axis=-1)
        self.read = self.add_weight(name="read", shape=read.shape, initializer=constant(read))
        self.output_kernel = self.add_weight(
            name="output", shape=each[3].shape, initializer=constant(each[3])
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
        flat = product(tf.reshape(tokens, [-1, width]), self.read)  # (N B, 3 D)
        apart = tf.reshape(flat, [count, -1, 3, self.heads, width // self.heads])
        query, key, value = tf.unstack(tf.transpose(apart, [2, 1, 3, 0, 4]))  # (B, H, N, D/H)
        scores = tf.matmul(query, key, transpose_b=True) / (width / self.heads) ** 0.5
        mixed = tf.matmul(tf.nn.softmax(scores), value)  # (B, H, N, D/H)
        mixed = tf.transpose(mixed, [2, 0, 1, 3])  # (N, B, H, D/H)
        made = product(tf.reshape(mixed, [-1, width]), self.output_kernel)
        return tf.reshape(made, [count, -1, width])
