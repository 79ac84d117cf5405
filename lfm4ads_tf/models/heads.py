"""Heads per scenario and task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from lfm4ads_tf.interactions.block import is_per_task
from lfm4ads_tf.interactions.columns import Carried, Columns, carry_kernel, same_columns
from lfm4ads_tf.interactions.scenario_choice import ScenarioChoice
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.task_towers import TaskTowers
from lfm4ads_tf.rebuildable import Rebuildable
from lfm4ads_tf.seeding import glorot


class ScenarioTaskHeads(Rebuildable, tf_keras.layers.Layer):
    """logit_{s,t} = w_{s,t} x + b_{s,t} (+ w_t x + b_t with a shared head).

    With a shared head the scenarios' own weights start at zero: they are corrections of it, and a
    row of an unknown scenario gets the shared logit alone. Without one it gets the mean of the
    scenarios' logits by their shares of the training rows, see `ScenarioChoice`.

    Args:
        scenarios: Number of scenarios S; 0 leaves the shared head alone.
        tasks: Number of tasks T.
        shared: Whether there is a shared head.
        seed: Seed of the initial weights.
    """

    def __init__(
        self, scenarios: int, tasks: int, *, shared: bool = True, seed: int = 0, name: str = "heads"
    ) -> None:
        super().__init__(name=name)
        self.scenarios = scenarios
        self.tasks = tasks
        self.shared = None
        if shared or not scenarios:
            self.shared = tf_keras.layers.Dense(
                tasks, kernel_initializer=glorot(seed, f"{name}/shared"), name="shared"
            )
        self.own = None
        if scenarios:
            initial = "zeros" if shared else glorot(seed, f"{name}/scenario")
            self.own = tf_keras.layers.Dense(
                scenarios * tasks, kernel_initializer=initial, name="scenario"
            )
            self.choice = ScenarioChoice(scenarios, shared=shared)

    def call(self, stream: tf.Tensor, scenario: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Computes the logits of each row's own scenario.

        Args:
            stream: Output of the interaction block, (B, d).
            scenario: (B,) index; -1 is unknown.
            training: Whether the rows are counted, see `ScenarioChoice`.

        Returns:
            Logits (B, T).
        """
        logits = tf.zeros([], stream.dtype)
        if self.own is not None:
            every = tf.reshape(self.own(stream), [-1, self.scenarios, self.tasks])  # (B, S, T)
            choice = self.choice(scenario, training=training)[:, -self.scenarios :]  # (B, S)
            logits += tf.reduce_sum(every * choice[:, :, tf.newaxis], axis=1)  # (B, T)
        if self.shared is not None:
            logits += self.shared(stream)  # (B, T)
        return logits

    def carry(
        self,
        target: ScenarioTaskHeads,
        columns: Columns,
        shares: Mapping[int, float],
        carried: Carried,
    ) -> None:
        """Makes a single shared head from the shared and the scenarios' own weights.

            w' = w + sum_s share_s w_s,  b' = b + sum_s share_s b_s

        Args:
            target: Heads with a shared head alone.
            columns: Columns of what each of the two reads.
            shares: Scenario index -> its share; summing to 1.
            carried: Gets the head.
        """
        kernel = np.zeros((len(columns[0]), self.tasks), np.float64)
        bias = np.zeros(self.tasks, np.float64)
        if self.shared is not None:
            kernel += self.shared.kernel.numpy()
            bias += self.shared.bias.numpy()
        if self.own is not None:
            shape = (-1, self.scenarios, self.tasks)
            kernels = self.own.kernel.numpy().reshape(shape)  # (d, S, T)
            biases = self.own.bias.numpy().reshape(shape[1:])  # (S, T)
            for scenario, share in shares.items():
                kernel += share * kernels[:, scenario]
                bias += share * biases[scenario]
        head: Any = target.shared
        tasks = same_columns("task", self.tasks)
        carry_kernel(kernel.astype(np.float32), head.kernel, columns, tasks)
        head.bias.assign(bias.astype(np.float32))
        carried.add("heads", head)


def build_heads(
    network: NetworkConfig, scenarios: int, tasks: int, *, seed: int, name: str = "heads"
) -> ScenarioTaskHeads | TaskTowers:
    """The heads for what a network's interaction block leaves.

    Args:
        network: The network; a block may leave a part for each task, which its task reads alone.
        scenarios: Number of scenarios; 0 leaves the shared head alone.
        tasks: Number of tasks.
        seed: Seed of the initial weights.
    """
    shared = network.shared_head or not scenarios
    if is_per_task(network.block):
        return TaskTowers([], scenarios, tasks, shared=shared, seed=seed, name=name)
    return ScenarioTaskHeads(scenarios, tasks, shared=shared, seed=seed, name=name)
