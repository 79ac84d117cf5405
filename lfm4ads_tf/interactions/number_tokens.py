"""Tokens that are made of numbers."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf
import tf_keras

from lfm4ads_tf.interactions.expert_bank import constant
from lfm4ads_tf.precision import product
from lfm4ads_tf.rebuildable import Rebuildable
from lfm4ads_tf.seeding import derive


class NumberTokens(Rebuildable, tf_keras.layers.Layer):
    """x_p = V_p [numbers of user, item and context] + b_p for p = 1 ... P.

    V_p is cut by owners: what one row stands for all of is multiplied once. It starts as rows of a
    Glorot-uniform matrix, whose values depend on seed, name and owner.

    Args:
        count: P.
        dim: Width D of a token.
        seed: Seed of the initial weights.

    Source: RankUp (arXiv 2604.17878), dense-feature tokens; how they are made is ours.
    """

    def __init__(self, count: int, dim: int, *, seed: int = 0, name: str = "number_tokens") -> None:
        super().__init__(name=name)
        self.count = count
        self.dim = dim
        self.seed = seed

    def build(self, input_shape: Mapping[str, tf.TensorShape]) -> None:
        """Makes the weights for the numbers of each owner."""
        widths = {owner: int(shape[-1]) for owner, shape in input_shape.items()}
        limit = (6.0 / (sum(widths.values()) + self.dim)) ** 0.5
        self.kernels: dict[str, tf.Variable] = {}
        for owner, width in widths.items():
            draw = tf_keras.initializers.RandomUniform(
                -limit, limit, seed=derive(self.seed, f"{self.name}/{owner}")
            )
            initial = draw((width, self.count * self.dim))
            self.kernels[owner] = self.add_weight(
                name=f"kernel_{owner}", shape=initial.shape, initializer=constant(initial)
            )
        shape = (self.count, 1, self.dim)
        self.bias = self.add_weight(name="bias", shape=shape, initializer="zeros")
        super().build(input_shape)

    def call(self, numbers: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Makes the tokens.

        Args:
            numbers: Owner -> its numbers (B, n_o); one row stands for B equal ones.

        Returns:
            Token by token, (P, B, D).
        """
        tokens = tf.convert_to_tensor(self.bias)  # (P, 1, D)
        for owner, values in numbers.items():
            made = product(values, self.kernels[owner])  # (B, P D)
            made = tf.reshape(made, [-1, self.count, self.dim])
            tokens += tf.transpose(made, [1, 0, 2])  # (P, B, D)
        return tokens
