"""One DCNv2 cross layer."""

from __future__ import annotations

import tensorflow as tf
import tf_keras

from lfm4ads_tf.kernels.cross import fused_cross
from lfm4ads_tf.precision import dense, product
from lfm4ads_tf.rebuildable import Rebuildable
from lfm4ads_tf.seeding import glorot


class Cross(Rebuildable, tf_keras.layers.Layer):
    """x_{l+1} = x_0 * (W x_l + b) + x_l, with W full or W = U V of rank r.

    Args:
        rank: r; None for a full matrix.
        seed: Seed of the initial weights.

    Source: Wang et al., DCN V2 (arXiv 2008.13535), section 3.2.
    """

    def __init__(self, rank: int | None = None, *, seed: int = 0, name: str | None = None) -> None:
        super().__init__(name=name)
        self.rank = rank
        self.seed = seed

    def build(self, input_shape: tuple[tf.TensorShape, tf.TensorShape]) -> None:
        """Makes W (and its factors) for the stream's width."""
        width = int(input_shape[0][-1])
        if self.rank is not None:
            self.down = tf_keras.layers.Dense(
                self.rank,
                use_bias=False,
                kernel_initializer=glorot(self.seed, f"{self.name}/down"),
                name="down",
                dtype=self.dtype_policy,
            )
        self.dense = tf_keras.layers.Dense(
            width,
            kernel_initializer=glorot(self.seed, f"{self.name}/kernel"),
            name="kernel",
            dtype=self.dtype_policy,
        )
        super().build(input_shape)

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Crosses the stream with its origin.

        Args:
            inputs: x_0 and x_l, both (B, d).
            training: Whether compiled kernels may be used; an exported graph holds none.

        Returns:
            x_{l+1}: (B, d).
        """
        origin, stream = inputs
        hidden = stream if self.rank is None else dense(self.down, stream)  # (B, r)
        if training and self.dense.built:
            kernel, bias = self.dense.kernel, self.dense.bias
            fused = fused_cross(origin, product(hidden, kernel), bias, stream)
            if fused is not None:
                return fused  # (B, d)
        return origin * dense(self.dense, hidden) + stream
