"""One side's towers, one for each set of its embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from lfm4ads_tf.interactions.expert_bank import constant, stacked_glorot
from lfm4ads_tf.models.owned_fields import OwnedInputs
from lfm4ads_tf.precision import product
from lfm4ads_tf.rebuildable import Rebuildable


class SetTower(Rebuildable, tf_keras.layers.Layer):
    """r^k = W^k_n relu(... relu(W^k_1 x^k + b^k_1) ...) + b^k_n for each of K sets.

    Without units, r^k = x^k. Each layer of all sets is one batched product. A set's initial weights
    depend on seed, name and number of the set.

    Args:
        units: Width of each layer.
        seed: Seed of the initial weights.
    """

    def __init__(self, units: Sequence[int], *, seed: int = 0, name: str | None = None) -> None:
        super().__init__(name=name)
        self.units = list(units)
        self.seed = seed

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes the weights for the number of sets and the inputs' width."""
        sets = int(input_shape[0])
        widths = [int(input_shape[-1]), *self.units]
        self.layers: list[tuple[tf.Variable, tf.Variable]] = []
        for k, (below, above) in enumerate(zip(widths[:-1], widths[1:], strict=True), start=1):
            names = [f"{self.name}/set_{of}/{k}" for of in range(sets)]
            initial = stacked_glorot(self.seed, names, (below, above))
            kernel = self.add_weight(
                name=f"kernel_{k}", shape=initial.shape, initializer=constant(initial)
            )  # (K, d_{k-1}, d_k)
            bias = self.add_weight(name=f"bias_{k}", shape=(sets, 1, above), initializer="zeros")
            self.layers.append((kernel, bias))
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """(K, B, d) of one side's embeddings and numbers -> (K, B, d_r)."""
        for k, (kernel, bias) in enumerate(self.layers, start=1):
            inputs = product(inputs, kernel) + bias
            if k < len(self.layers):
                inputs = tf.nn.relu(inputs)
        return inputs

    def represent(self, inputs: OwnedInputs) -> tf.Tensor:
        """[r^0; ...; r^(K-1)], (B, K d_r)."""
        return side_by_side(self(inputs.per_set()))


def side_by_side(sets: tf.Tensor) -> tf.Tensor:
    """(K, B, d) -> (B, K d)."""
    width = sets.shape[0] * sets.shape[2]
    return tf.reshape(tf.transpose(sets, [1, 0, 2]), [-1, width])
