"""Factorisation machine layer."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from lfm4ads_tf.seeding import glorot


class FM(tf_keras.layers.Layer):
    """Bi-interaction pooling: z = 1/2 ((sum_f v_f)^2 - sum_f v_f^2), element by element.

    Fields of another width than `dim` are projected to it first.

    Args:
        dim: Width of z.
        seed: Seed of the projections.

    Source: Rendle, Factorization Machines (2010); He and Chua, Neural FM (2017), section 3.2.
    """

    def __init__(self, dim: int, *, seed: int = 0, name: str | None = None) -> None:
        super().__init__(name=name)
        self.dim = dim
        self.seed = seed

    def build(self, input_shape: Sequence[tf.TensorShape]) -> None:
        """Makes one projection per width that is not `dim`."""
        self.projections = {
            str(shape[-1]): tf_keras.layers.Dense(
                self.dim,
                use_bias=False,
                kernel_initializer=glorot(self.seed, f"{self.name}/{shape[-1]}"),
                name=f"project_{shape[-1]}",
            )
            for shape in input_shape
            if shape[-1] != self.dim
        }
        super().build(input_shape)

    def call(self, fields: Sequence[tf.Tensor]) -> tf.Tensor:
        """Pools all pairs of fields.

        Args:
            fields: Field embeddings, one tensor (B, F_w, w) per width w.

        Returns:
            z: (B, dim).
        """
        total = tf.zeros([], fields[0].dtype)
        squares = tf.zeros([], fields[0].dtype)
        for group in fields:
            projection = self.projections.get(str(group.shape[-1]))
            vectors = group if projection is None else projection(group)  # (B, F_w, dim)
            total += tf.reduce_sum(vectors, axis=1)  # (B, dim)
            squares += tf.reduce_sum(tf.square(vectors), axis=1)  # (B, dim)
        return 0.5 * (tf.square(total) - squares)
