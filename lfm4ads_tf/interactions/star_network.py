"""Dense layers whose weights are shared ones times those of each row's scenario."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from lfm4ads_tf.interactions.scenario_embedding import group_of
from lfm4ads_tf.precision import product
from lfm4ads_tf.rebuildable import Rebuildable
from lfm4ads_tf.seeding import glorot


class StarNetwork(Rebuildable, tf_keras.layers.Layer):
    """a^l = (W^l * W_s^l) h^(l-1) + b^l + b_s^l,  h^l = relu(a^l),  h^0 = x;  the last a is z.

    The products of weights are element by element; W_s = 1 and b_s = 0 at the start. A row of an
    unknown scenario has W and b alone. W_s is kept less 1: weight decay then draws a scenario to
    what is shared, not its weights to 0.

    Rows are put apart by scenario once and together again at the end, so that a step multiplies
    every row by its own scenario's weights alone: B d h products and the S d h of W * W_s, where a
    choice among all scenarios' outputs would take S B d h, and weights gathered row by row B d h
    numbers of memory. Rows of one scenario reach no other one's weights: their gradients are zeros.

    Args:
        units: Width of each hidden layer.
        scenarios: Number of scenarios S.
        outputs: Width of z.
        seed: Seed of the initial weights.

    Source: Sheng et al., One Model to Serve All: Star Topology Adaptive Recommender for
    Multi-Domain CTR Prediction (CIKM 2021), Star Topology FCN.
    """

    def __init__(
        self,
        units: Sequence[int],
        scenarios: int,
        outputs: int,
        *,
        seed: int = 0,
        name: str = "star",
    ) -> None:
        super().__init__(name=name)
        self.units = list(units)
        self.scenarios = scenarios
        self.outputs = outputs
        self.seed = seed

    def build(self, input_shape: tuple[tf.TensorShape, tf.TensorShape]) -> None:
        """Makes the weights for the inputs' width."""
        widths = [int(input_shape[0][-1]), *self.units, self.outputs]
        self.layers: list[tuple[tf.Variable, ...]] = []
        for k, (below, above) in enumerate(zip(widths[:-1], widths[1:], strict=True), start=1):
            shape = (below, above)
            self.layers.append(
                (
                    self.add_weight(
                        name=f"kernel_{k}",
                        shape=shape,
                        initializer=glorot(self.seed, f"{self.name}/{k}"),
                    ),
                    self.add_weight(
                        name=f"own_kernel_{k}",
                        shape=(self.scenarios, *shape),
                        initializer="zeros",
                    ),
                    self.add_weight(name=f"bias_{k}", shape=(above,), initializer="zeros"),
                    self.add_weight(
                        name=f"bias_of_scenarios_{k}",
                        shape=(self.scenarios, above),
                        initializer="zeros",
                    ),
                )
            )
        super().build(input_shape)

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Runs the layers.

        Args:
            inputs: x (B, d), and the scenario (B,); -1 is unknown.

        Returns:
            a^1 ... a^n before the relu, each (B, units_l), and z (B, outputs).
        """
        read, scenario = inputs
        groups = self.scenarios + 1
        group = group_of(scenario, self.scenarios)
        places = tf.dynamic_partition(tf.range(tf.shape(group)[0]), group, groups)
        parts = tf.dynamic_partition(read, group, groups)  # S + 1 of (B_s, d)
        layers = []
        for k, weights in enumerate(self.layers):
            # read once: a read of a parameter server is a message
            kernel, own_kernel, bias, own_bias = map(tf.convert_to_tensor, weights)
            kernels = [*tf.unstack(kernel * (1.0 + own_kernel)), kernel]  # S + 1 of (d, h)
            biases = [*tf.unstack(bias + own_bias), bias]
            if k:
                parts = [tf.nn.relu(part) for part in parts]
            parts = [
                tf.nn.bias_add(product(part, w), b)
                for part, w, b in zip(parts, kernels, biases, strict=True)
            ]
            layers.append(tf.dynamic_stitch(places, parts))  # (B, h)
        return layers[:-1], layers[-1]
