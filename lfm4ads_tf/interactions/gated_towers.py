"""A tower per task, every layer of which is multiplied by a gate."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from lfm4ads_tf.interactions.expert_bank import constant, stacked_glorot
from lfm4ads_tf.interactions.gate_unit import GateUnit
from lfm4ads_tf.kernels.bias import add_bias
from lfm4ads_tf.precision import product
from lfm4ads_tf.rebuildable import Rebuildable


class GatedTowers(Rebuildable, tf_keras.layers.Layer):
    """h_t^l = relu(W_t^l h_t^(l-1) + b_t^l) * gate^l(v)_t,  z_t = w_t h_t^n + c_t,  h_t^0 = x.

    A factor is above 0, so that h = relu(a) with a = (W h + b) * gate, which is what a layer gives.
    gate^l is one `GateUnit` of layer l, whose factors are those of all tasks side by side. The
    first layers of all towers are one product, a deeper layer of all of them is one batched
    product. Each W starts as a Glorot-uniform matrix of its own, whose values depend on seed, name
    and number of the tower.

    Args:
        units: Width of each layer, at least one.
        tasks: Number of tasks T.
        gate_units: Width of each gate's hidden layer.
        seed: Seed of the initial weights.

    Raises:
        ValueError: There is no layer.

    Source: Chang et al., PEPNet (KDD 2023), the Parameter Personalized Network.
    """

    def __init__(
        self,
        units: Sequence[int],
        tasks: int,
        *,
        gate_units: int,
        seed: int = 0,
        name: str = "gated_towers",
    ) -> None:
        super().__init__(name=name)
        if not units:
            raise ValueError("A gated tower needs at least one layer.")
        self.units = list(units)
        self.tasks = tasks
        self.seed = seed
        self.gates = [
            GateUnit(gate_units, tasks * width, seed=seed, name=f"{name}_gate_{k}")
            for k, width in enumerate(units, start=1)
        ]

    def build(self, input_shape: tuple[tf.TensorShape, tf.TensorShape]) -> None:
        """Makes the weights for the width of what the towers read."""
        widths = [int(input_shape[0][-1]), *self.units]
        self.layers: list[tuple[tf.Variable, tf.Variable]] = []
        for k, (below, above) in enumerate(zip(widths[:-1], widths[1:], strict=True), start=1):
            initial = self._glorot(f"{k}", below, above)  # (T, h_(k-1), h_k)
            bias: tuple[int, ...] = (self.tasks, 1, above)
            if k == 1:  # one product for all towers
                initial = tf.concat(tf.unstack(initial), axis=-1)  # (d, T h_1)
                bias = (self.tasks * above,)
            kernel = self.add_weight(
                name=f"kernel_{k}", shape=initial.shape, initializer=constant(initial)
            )
            self.layers.append(
                (kernel, self.add_weight(name=f"bias_{k}", shape=bias, initializer="zeros"))
            )
        initial = self._glorot("logit", widths[-1], 1)  # (T, h, 1)
        self.logit_kernel = self.add_weight(
            name="logit_kernel", shape=initial.shape, initializer=constant(initial)
        )
        self.logit_bias = self.add_weight(
            name="logit_bias", shape=(self.tasks, 1, 1), initializer="zeros"
        )
        super().build(input_shape)

    def call(
        self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool = False
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Runs the towers.

        Args:
            inputs: x (B, d), and what the gates read, v (B, d_v).
            training: Whether compiled kernels may be used; an exported graph holds none.

        Returns:
            a^1 ... a^n, whose relu are h^1 ... h^n, each (B, T, h_l), and the logits (B, T).
        """
        read, of_gates = inputs
        hidden, activations = read, []
        add = add_bias if training else tf.nn.bias_add
        for (kernel, bias), gate, width in zip(self.layers, self.gates, self.units, strict=True):
            if len(kernel.shape) == 2:
                hidden = self._by_task(add(product(hidden, kernel), bias), width)
            else:
                hidden = product(hidden, kernel) + bias
            hidden *= self._by_task(gate(of_gates), width)  # (T, B, h_l)
            activations.append(tf.transpose(hidden, [1, 0, 2]))  # (B, T, h_l)
            hidden = tf.nn.relu(hidden)
        logits = tf.matmul(hidden, self.logit_kernel) + self.logit_bias  # (T, B, 1)
        return activations, tf.transpose(tf.squeeze(logits, axis=-1))

    def _by_task(self, values: tf.Tensor, width: int) -> tf.Tensor:
        """(B, T h) -> (T, B, h)."""
        return tf.transpose(tf.reshape(values, [-1, self.tasks, width]), [1, 0, 2])

    def _glorot(self, layer: str, below: int, above: int) -> tf.Tensor:
        """Initial weights of one layer of every tower, (T, below, above)."""
        names = [f"{self.name}/task_{t}/{layer}" for t in range(self.tasks)]
        return stacked_glorot(self.seed, names, (below, above))
