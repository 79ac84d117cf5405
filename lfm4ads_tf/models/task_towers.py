"""Heads that read a mixture per task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from lfm4ads_tf.interactions.columns import Carried, Columns, shared_columns
from lfm4ads_tf.interactions.tower_bank import TowerBank


class TaskTowers(TowerBank):
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
        super().__init__(units, scenarios, tasks, shared=shared, seed=seed, name=name)

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes the weights for the mixtures' width."""
        super().build([None, self.tasks, int(input_shape[-1]) // self.tasks])

    def call(self, mixed: tf.Tensor, scenario: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Computes the logits of each row's own scenario.

        Args:
            mixed: The tasks' mixtures side by side, (B, T h).
            scenario: (B,) index; -1 is unknown.
            training: See `TowerBank`.

        Returns:
            Logits (B, T).
        """
        width = mixed.shape[-1] // self.tasks
        apart = tf.reshape(mixed, [-1, self.tasks, width])  # (B, T, h)
        return super().call(apart, scenario, training)

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
