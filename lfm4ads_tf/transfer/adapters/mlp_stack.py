"""The MLP over one stored representation that adapters are made of."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from lfm4ads_tf.interactions.dropout import Dropout
from lfm4ads_tf.rebuildable import Rebuildable
from lfm4ads_tf.seeding import derive, glorot


class MlpStack(Rebuildable, tf_keras.layers.Layer):
    """a = W_n relu(... relu(W_1 [LN(r) p; p] + b_1) ...) + b_n, p being 1 where r is present.

    Args:
        units: Widths of the layers; the last one is that of a.
        label: What the initial weights depend on beside the seed.
        dropout: Rate applied to each hidden layer in training.
        zero_init: Whether W_n starts at zero.
        seed: Seed of the initial weights and of the dropout.
    """

    def __init__(
        self,
        units: Sequence[int],
        *,
        label: str,
        dropout: float = 0.0,
        zero_init: bool = False,
        seed: int = 0,
        name: str,
    ) -> None:
        super().__init__(name=name)
        last = len(units) - 1
        self.norm = tf_keras.layers.LayerNormalization(epsilon=1e-6, name="norm")
        self.denses = [
            tf_keras.layers.Dense(
                width,
                activation="relu" if j < last else None,
                kernel_initializer=(
                    "zeros" if zero_init and j == last else glorot(seed, f"{label}/{j}")
                ),
                name=f"dense_{j}",
            )
            for j, width in enumerate(units)
        ]
        self.dropouts = [
            Dropout(dropout, seed=derive(seed, label), name=f"dropout_{j}") for j in range(last)
        ]

    def call(self, stored: tf.Tensor, training: bool = False) -> tf.Tensor:
        """(B, d + 1) with the presence flag last -> a (B, units[-1])."""
        present = stored[:, -1:]  # (B, 1)
        value = tf.concat([self.norm(stored[:, :-1]) * present, present], axis=-1)  # (B, d + 1)
        for dense, dropout in zip(self.denses[:-1], self.dropouts, strict=True):
            value = dropout(dense(value), training=training)
        return self.denses[-1](value)
