"""Heads that read a mixture per task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
import tf_keras

from lfm4ads_tf.interactions.columns import Carried, Columns, shared_columns
from lfm4ads_tf.interactions.experts import constant, stacked_glorot
from lfm4ads_tf.precision import product
from lfm4ads_tf.rebuildable import Rebuildable


class TaskTowers(Rebuildable, tf_keras.layers.Layer):
    """A tower per task and its logits, each layer of all tasks being one batched product.

    Args:
        units: Width of each layer; without any, the logits read the mixtures themselves.
        scenarios: Number of scenarios S; 0 leaves the shared logit alone.
        tasks: Number of tasks T.
        shared: Whether a logit is shared by all scenarios; the scenarios' own then start at zero.
        seed: Seed of the initial weights.
    """

    def __init__(
        self,
        units: Sequence[int],
        scenarios: int,
        tasks: int,
        *,
        shared: bool = True,
        seed: int = 0,
        name: str = "task_towers",
    ) -> None:
        super().__init__(name=name)
        self.units = list(units)
        self.scenarios = scenarios
        self.tasks = tasks
        self.shared = shared or not scenarios
        self.seed = seed

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes the weights for the mixtures' width."""
        widths = [int(input_shape[-1]) // self.tasks, *self.units]
        self.layers: list[tuple[tf.Variable, tf.Variable]] = []
        for k, (below, above) in enumerate(zip(widths[:-1], widths[1:], strict=True), start=1):
            initial = self._glorot(f"{k}", below, above)
            kernel = self.add_weight(
                name=f"kernel_{k}", shape=initial.shape, initializer=constant(initial)
            )  # (T, u_{k-1}, u_k)
            bias = self.add_weight(
                name=f"bias_{k}", shape=(self.tasks, 1, above), initializer="zeros"
            )
            self.layers.append((kernel, bias))
        parts = [self._glorot("shared", widths[-1], 1)] if self.shared else []
        if self.scenarios:
            scenario_kernel = self._glorot("scenario", widths[-1], self.scenarios)
            parts.append(tf.zeros_like(scenario_kernel) if self.shared else scenario_kernel)
        initial = tf.concat(parts, axis=-1)  # (T, u, 1 + S), (T, u, 1) or (T, u, S)
        self.logit_kernel = self.add_weight(
            name="logit_kernel", shape=initial.shape, initializer=constant(initial)
        )
        self.logit_bias = self.add_weight(
            name="logit_bias", shape=(self.tasks, 1, initial.shape[-1]), initializer="zeros"
        )
        super().build(input_shape)

    def call(self, mixed: tf.Tensor, scenario: tf.Tensor) -> tf.Tensor:
        """Computes the logits of each row's own scenario.

        Args:
            mixed: The tasks' mixtures side by side, (B, T h).
            scenario: (B,) index; -1 (unknown) selects no scenario's weights.

        Returns:
            Logits (B, T).
        """
        width = mixed.shape[-1] // self.tasks
        hidden = tf.reshape(mixed, [-1, self.tasks, width])  # (B, T, h)
        hidden = tf.transpose(hidden, [1, 0, 2])  # (T, B, h)
        for kernel, bias in self.layers:
            hidden = tf.nn.relu(product(hidden, kernel) + bias)  # (T, B, u_k)
        every = tf.matmul(hidden, self.logit_kernel) + self.logit_bias  # (T, B, 1 + S)
        pick = tf.one_hot(scenario, self.scenarios, dtype=every.dtype)  # (B, S)
        if self.shared:
            pick = tf.concat([tf.ones_like(every[0, :, :1]), pick], axis=-1)  # (B, 1 + S)
        return tf.transpose(tf.reduce_sum(every * pick, axis=-1))  # (B, T)

    def carry(
        self, target: TaskTowers, columns: Columns, shares: Mapping[int, float], carried: Carried
    ) -> None:
        """Makes logits of the tasks alone from the shared and the scenarios' own weights.

        Args:
            target: Task towers without a scenario or hidden units.
            columns: Columns (B, T h) of what each of the two reads, task by task.
            shares: Scenario index -> its share; summing to 1.
            carried: Gets the layer.
        """
        kernels, biases = self.logit_kernel.numpy(), self.logit_bias.numpy()  # (T, u, 1 + S)
        first = int(self.shared)
        weights = np.zeros((kernels.shape[-1], 1), np.float32)
        weights[:first] = 1.0
        for scenario, share in shares.items():
            weights[first + scenario] += share
        kernel, bias = kernels @ weights, biases @ weights  # (T, u, 1), (T, 1, 1)
        values = np.array(target.logit_kernel)  # (T, u', 1)
        width, wider = kernel.shape[1], values.shape[1]
        for t in range(self.tasks):
            before, behind = shared_columns(
                (columns[0][t * width : (t + 1) * width], columns[1][t * wider : (t + 1) * wider])
            )
            values[t] = 0.0
            values[t][behind] = kernel[t][before]
        target.logit_kernel.assign(values)
        target.logit_bias.assign(bias)
        carried.add("heads", target)

    def _glorot(self, layer: str, below: int, above: int) -> tf.Tensor:
        """Initial weights of one layer of every task's tower, (T, below, above)."""
        names = [f"{self.name}/task_{t}/{layer}" for t in range(self.tasks)]
        return stacked_glorot(self.seed, names, (below, above))
