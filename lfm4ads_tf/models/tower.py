"""One side's tower."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from lfm4ads_tf.interactions.columns import Carried, Columns, carry_dense, same_columns
from lfm4ads_tf.models.owned_fields import OwnedInputs
from lfm4ads_tf.precision import dense
from lfm4ads_tf.rebuildable import Rebuildable
from lfm4ads_tf.seeding import glorot


class Tower(Rebuildable, tf_keras.layers.Layer):
    """r = W_n relu(... relu(W_1 x + b_1) ...) + b_n; without units, r = x.

    Args:
        units: Width of each layer.
        seed: Seed of the initial weights.

    Source: LFM4Ads (arXiv 2508.14948); the public experiment's towers have no layer.
    """

    def __init__(self, units: Sequence[int], *, seed: int = 0, name: str | None = None) -> None:
        super().__init__(name=name)
        self.layers = [
            tf_keras.layers.Dense(
                width,
                activation="relu" if k < len(units) else None,
                kernel_initializer=glorot(seed, f"{self.name}_{k}"),
                name=f"{self.name}_{k}",
            )
            for k, width in enumerate(units, start=1)
        ]

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """(B, d) of one side's embeddings and numbers -> the representation (B, d_r)."""
        for layer in self.layers:
            inputs = dense(layer, inputs)
        return inputs

    def represent(self, inputs: OwnedInputs) -> tf.Tensor:
        """The representation (B, d_r) of the side's inputs, all sets side by side."""
        return self(inputs.joined())

    def carry(self, target: Tower, columns: Columns, carried: Carried) -> None:
        """Copies the weights into a tower of the same units, by what the inputs' columns mean."""
        for one, other in zip(self.layers, target.layers, strict=True):
            output = same_columns(one.name, one.units)
            carry_dense(one, other, columns, output)
            carried.add("towers", other)
            columns = output
