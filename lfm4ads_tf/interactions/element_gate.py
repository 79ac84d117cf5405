"""Gates that weigh the experts dimension by dimension."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from lfm4ads_tf.interactions.expert_bank import constant
from lfm4ads_tf.precision import product
from lfm4ads_tf.rebuildable import Rebuildable
from lfm4ads_tf.seeding import glorot


class ElementGate(Rebuildable, tf_keras.layers.Layer):
    """m_g = sum_p w_{g,p} * O^p with w_g = softmax over p of reshape(r W_g, (M, h)), per dimension.

    Every one of the h dimensions has a softmax of its own over the M experts. With `vector` there
    is one for all dimensions, w_g = softmax(r W_g), as a usual gate's. W_g starts as a
    Glorot-uniform matrix whose values depend on seed, name and number of the gate.

    Args:
        gates: Number of gates G.
        vector: Whether all dimensions of an expert have one weight.
        seed: Seed of the initial weights.

    Source: Crocodile (CIKM 2024, arXiv 2405.12706), known at second hand; the shapes are ours.
    """

    def __init__(
        self, gates: int, *, vector: bool = False, seed: int = 0, name: str = "gates"
    ) -> None:
        super().__init__(name=name)
        self.count = gates
        self.vector = vector
        self.seed = seed

    def build(self, input_shape: Sequence[tf.TensorShape]) -> None:
        """Makes the weights for the prior's width and the experts' outputs."""
        prior, outputs = input_shape[0], input_shape[1]
        self.experts = int(outputs[1])
        self.width = 1 if self.vector else int(outputs[2])
        shape = (int(prior[-1]), self.experts * self.width)
        names = [f"{self.name}/gate_{g}" for g in range(self.count)]
        initial = tf.concat([glorot(self.seed, n)(shape) for n in names], axis=-1)
        self.kernel = self.add_weight(
            name="kernel", shape=initial.shape, initializer=constant(initial)
        )  # (d_r, G M h)
        super().build(input_shape)

    def call(self, inputs: Sequence[tf.Tensor], gate: int | None = None) -> tf.Tensor:
        """Mixes the experts' outputs for some gates.

        Args:
            inputs: The prior r (B, d_r) and the outputs O (B, M, h); behind them may stand the
                gates that each row asks for, (B, n) int, without which it asks for all.
            gate: A gate that all rows ask for: its columns alone are multiplied.

        Returns:
            m: (B, n, h), of all gates (B, G, h), of one (B, 1, h).
        """
        prior, outputs, *asked = inputs
        kernel = self.kernel
        if gate is not None:
            columns = self.experts * self.width
            kernel = kernel[:, gate * columns : (gate + 1) * columns]  # (d_r, M h)
        gates = self.count if gate is None else 1
        scores = tf.reshape(
            product(prior, kernel), [-1, gates, self.experts, self.width]
        )  # (B, G, M, h)
        if asked:
            scores = tf.gather(scores, asked[0], axis=1, batch_dims=1)  # (B, n, M, h)
        weights = tf.nn.softmax(scores, axis=2)
        return tf.reduce_sum(weights * outputs[:, tf.newaxis], axis=2)
