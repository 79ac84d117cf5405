"""One softmax gate per task over experts of different kinds."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from lfm4ads_tf.interactions.columns import (
    Carried,
    Columns,
    carry_dense,
    carry_kernel,
    same_columns,
)
from lfm4ads_tf.interactions.expert_bank import constant
from lfm4ads_tf.precision import dense, product
from lfm4ads_tf.rebuildable import Rebuildable
from lfm4ads_tf.seeding import glorot


class TaskGates(Rebuildable, tf_keras.layers.Layer):
    """m_t = sum_e g_{t,e} relu(P_e o_e + c_e) with g_t = softmax(W_t x_0).

    The experts' outputs o_e differ in width, so each has a projection P_e to the width h. The W_t
    of all tasks are one matrix product; their initial values depend on seed, name and number of
    the task, those of P_e on the expert's name.

    Args:
        experts: Names of the experts.
        tasks: Number of tasks T.
        dim: Width h of a projected output.
        seed: Seed of the initial weights.

    Source: Ma et al., Modeling Task Relationships in Multi-task Learning with Multi-gate
    Mixture-of-Experts (KDD 2018), section 4.2, for the gates; Pan et al., Ad Recommendation in a
    Collapsed and Entangled World (arXiv 2403.00793), for experts of different interactions.
    """

    def __init__(
        self,
        experts: Sequence[str],
        tasks: int,
        dim: int,
        *,
        seed: int = 0,
        name: str = "gates",
    ) -> None:
        super().__init__(name=name)
        self.tasks = tasks
        self.seed = seed
        self.projections = [
            tf_keras.layers.Dense(
                dim,
                activation="relu",
                kernel_initializer=glorot(seed, f"{name}/{expert}"),
                name=f"project_{expert}",
            )
            for expert in experts
        ]

    def build(self, input_shape: tuple[tf.TensorShape, list[tf.TensorShape]]) -> None:
        """Makes the gates for the width of x_0."""
        width, experts = int(input_shape[0][-1]), len(self.projections)
        initial = tf.concat(
            [
                glorot(self.seed, f"{self.name}/gate_{t}")((width, experts))
                for t in range(self.tasks)
            ],
            axis=-1,
        )  # (d, T E): task by task
        self.kernel = self.add_weight(
            name="kernel", shape=initial.shape, initializer=constant(initial)
        )
        super().build(input_shape)

    def call(self, inputs: tuple[tf.Tensor, list[tf.Tensor]]) -> tf.Tensor:
        """Mixes the experts' outputs for every task.

        Args:
            inputs: x_0 (B, d), and each expert's output (B, d_e) in order.

        Returns:
            m: (B, T, h).
        """
        stream, outputs = inputs
        scores = product(stream, self.kernel)  # (B, T E)
        gates = tf.nn.softmax(tf.reshape(scores, [-1, self.tasks, len(outputs)]))  # (B, T, E)
        projected = [dense(p, o) for p, o in zip(self.projections, outputs, strict=True)]
        return tf.matmul(gates, tf.stack(projected, axis=1))

    def carry(
        self, target: TaskGates, origin: Columns, outputs: Sequence[Columns], carried: Carried
    ) -> None:
        """Copies the weights by what the columns mean.

        Args:
            target: Gates of the same experts and tasks.
            origin: Columns of x_0.
            outputs: Columns of each expert's output, in order.
            carried: Gets the layer.
        """
        every = same_columns("gate", int(self.kernel.shape[-1]))
        carry_kernel(self.kernel, target.kernel, origin, every)
        pairs = zip(self.projections, target.projections, outputs, strict=True)
        for one, other, columns in pairs:
            carry_dense(one, other, columns, same_columns(one.name, one.units))
        carried.add("gates", target)
