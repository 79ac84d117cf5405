"""A network of every token's own."""

from __future__ import annotations

from typing import Literal

import tensorflow as tf
import tf_keras

from lfm4ads_tf.interactions.expert_bank import constant, stacked_glorot
from lfm4ads_tf.kernels.bias import biased_gelu
from lfm4ads_tf.precision import product
from lfm4ads_tf.rebuildable import Rebuildable

Network = Literal["gelu", "swiglu"]


class TokenNetwork(Rebuildable, tf_keras.layers.Layer):
    """Two dense layers over each token with weights of its own, all tokens in one batched product.

        gelu:    W2_n gelu(W1_n x_n + b1_n) + b2_n                hidden width k D
        swiglu:  W3_n (silu(W1_n x_n) * W2_n x_n)                 hidden width round(2 k D / 3)

    Both have about N 2 k D^2 parameters. Each matrix starts as a Glorot-uniform one of its own
    whose values depend on seed, name and number of the token.

    Args:
        kind: See above.
        expansion: k.
        seed: Seed of the initial weights.

    Source: RankMixer (arXiv 2507.15551), the per-token feed-forward network; RankUp (arXiv
    2604.17878), SwiGLU in its place. The width of the latter is ours.
    """

    def __init__(
        self,
        kind: Network = "gelu",
        expansion: float = 4,
        *,
        seed: int = 0,
        name: str = "token_network",
    ) -> None:
        super().__init__(name=name)
        self.kind = kind
        self.expansion = expansion
        self.seed = seed

    def hidden(self, width: int) -> int:
        """Width of the hidden layer for tokens of a width D."""
        factor = 1.0 if self.kind == "gelu" else 2.0 / 3.0
        return max(1, round(factor * self.expansion * width))

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes the weights for the tokens' number and width."""
        count, width = int(input_shape[0]), int(input_shape[-1])
        hidden = self.hidden(width)

        def kernel(name: str, below: int, above: int, pieces: int = 1) -> tf.Variable:
            initial = tf.concat(
                [
                    stacked_glorot(
                        self.seed,
                        [f"{self.name}/token_{n}/{name}{p or ''}" for n in range(count)],
                        (below, above),
                    )
                    for p in range(pieces)
                ],
                axis=-1,
            )
            return self.add_weight(name=name, shape=initial.shape, initializer=constant(initial))

        # swiglu reads x_n once for both of its first matrices
        self.first = kernel("kernel_1", width, hidden, pieces=1 if self.kind == "gelu" else 2)
        self.last = kernel("kernel_2", hidden, width)
        if self.kind == "gelu":
            self.first_bias = self.add_weight(
                name="bias_1", shape=(count, 1, hidden), initializer="zeros"
            )
            self.last_bias = self.add_weight(
                name="bias_2", shape=(count, 1, width), initializer="zeros"
            )
        super().build(input_shape)

    def call(self, tokens: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Runs every token through its own layers.

        Args:
            tokens: Token by token, (N, B, D).
            training: Whether compiled kernels may be used; an exported graph holds none.

        Returns:
            (N, B, D).
        """
        read = product(tokens, self.first)  # (N, B, k D), or both of swiglu side by side
        if self.kind == "gelu":
            hidden = biased_gelu(read, self.first_bias, training=training)
            return product(hidden, self.last) + self.last_bias
        gate, value = tf.split(read, 2, axis=-1)
        return product(tf.nn.silu(gate) * value, self.last)
