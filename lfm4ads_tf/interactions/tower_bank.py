"""Towers per task, per scenario, or per pair of them, and their logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import tensorflow as tf
import tf_keras

from lfm4ads_tf.interactions.expert_bank import constant, stacked_glorot
from lfm4ads_tf.interactions.scenario_choice import ScenarioChoice
from lfm4ads_tf.kernels.bias import biased_relu
from lfm4ads_tf.precision import product
from lfm4ads_tf.rebuildable import Rebuildable

Towers = Literal["task", "scenario", "both"]


class TowerBank(Rebuildable, tf_keras.layers.Layer):
    """u_g = relu(W_{g,n} ... relu(W_{g,1} m_g + b_{g,1}) ... + b_{g,n}), and logits of u_g.

    `per` says what has a tower g of its own; s is the row's scenario:

        task:      z_t = w_t u_t + c_t [+ w_{s,t} u_t + c_{s,t}]
        scenario:  z_t = [w_t u_0 + c_t] + w_{s,t} u_s + c_{s,t}
        both:      z_t = [w_t u_{0,t} + c_t] + w_{s,t} u_{s,t} + c_{s,t}

    Tower 0 is shared by all scenarios. Where a logit is shared, the scenarios' own w_{s,t} and
    c_{s,t} start at zero: they are corrections of it, and an unknown scenario gets the shared logit
    alone. Without one it gets the mean of all z_t over s, each of what its own towers read, by the
    scenarios' shares of the training rows, see `ScenarioChoice`. Each layer of all towers is one
    batched product. Each matrix starts as a Glorot-uniform one of its own, whose values depend on
    seed, name and number of the tower.

    Args:
        units: Width of each layer; without any, the logits read what the towers are given.
        scenarios: Number of scenarios S; 0 leaves the shared logit alone.
        tasks: Number of tasks T.
        per: What has a tower of its own.
        shared: Whether a logit is shared by all scenarios.
        seed: Seed of the initial weights.

    Attributes:
        towers: Number of towers G: T, S or S T; with tower 0 of scenarios one or T more.
    """

    def __init__(
        self,
        units: Sequence[int],
        scenarios: int,
        tasks: int,
        *,
        per: Towers = "task",
        shared: bool = True,
        seed: int = 0,
        name: str = "towers",
    ) -> None:
        super().__init__(name=name)
        self.units = list(units)
        self.scenarios = scenarios
        self.tasks = tasks
        self.per = per
        self.shared = shared or not scenarios
        self.seed = seed
        self.choice = ScenarioChoice(scenarios, shared=self.shared)

    @property
    def _choices(self) -> int:
        """The shared logit and those of the scenarios, C = S or 1 + S."""
        return self.scenarios + int(self.shared)

    @property
    def towers(self) -> int:
        """Number of towers."""
        of_tasks = 1 if self.per == "scenario" else self.tasks
        return of_tasks if self.per == "task" else self._choices * of_tasks

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes the weights for the width of what the towers read."""
        widths = [int(input_shape[-1]), *self.units]
        self.layers: list[tuple[tf.Variable, tf.Variable]] = []
        for k, (below, above) in enumerate(zip(widths[:-1], widths[1:], strict=True), start=1):
            initial = self._glorot(f"{k}", below, above)
            kernel = self.add_weight(
                name=f"kernel_{k}", shape=initial.shape, initializer=constant(initial)
            )  # (G, u_{k-1}, u_k)
            bias = self.add_weight(
                name=f"bias_{k}", shape=(self.towers, 1, above), initializer="zeros"
            )
            self.layers.append((kernel, bias))
        initial = self._logit_kernel(widths[-1])
        self.logit_kernel = self.add_weight(
            name="logit_kernel", shape=initial.shape, initializer=constant(initial)
        )
        self.logit_bias = self.add_weight(
            name="logit_bias", shape=(self.towers, 1, initial.shape[-1]), initializer="zeros"
        )
        super().build(input_shape)

    def call(self, read: tf.Tensor, scenario: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Computes the logits of each row's own scenario.

        Args:
            read: What the towers read, (B, n, h): n = 1 for all alike; n = T of `both`, each task's
                towers alike; or n = G, each its own.
            scenario: (B,) index; -1 is unknown.
            training: Whether the rows are counted, see `ScenarioChoice`, and compiled kernels may
                be used; an exported graph holds none.

        Returns:
            Logits (B, T).

        Raises:
            ValueError: n is another number.
        """
        given = read.shape[1]
        if given not in (1, self.towers, self.tasks if self.per == "both" else 1):
            raise ValueError(f"{self.towers} towers cannot read {given} inputs.")
        hidden = tf.transpose(read, [1, 0, 2])  # (n, B, h)
        if given < self.towers:
            hidden = tf.tile(hidden, [self.towers // given, 1, 1])  # (G, B, h)
        for kernel, bias in self.layers:
            hidden = biased_relu(product(hidden, kernel), bias, training=training)  # (G, B, u_k)
        every = tf.matmul(hidden, self.logit_kernel) + self.logit_bias
        choice = self.choice(scenario, training=training)  # (B, C)
        if self.per == "task":  # (T, B, C)
            return tf.transpose(tf.reduce_sum(every * choice, axis=-1))  # (B, T)
        chosen = tf.transpose(choice)  # (C, B)
        if self.per == "scenario":  # (C, B, T)
            return tf.reduce_sum(every * chosen[:, :, tf.newaxis], axis=0)
        rows = tf.shape(every)[1]
        by_task = tf.reshape(every, [self._choices, self.tasks, rows])  # (C, T, B)
        return tf.transpose(tf.reduce_sum(by_task * chosen[:, tf.newaxis], axis=0))  # (B, T)

    def _logit_kernel(self, width: int) -> tf.Tensor:
        """Initial weights of the logits: (T, u, C), (C, u, T) of scenarios or (C T, u, 1)."""
        if self.per == "task":
            parts = [self._glorot("shared", width, 1)] if self.shared else []
            if self.scenarios:
                own = self._glorot("scenario", width, self.scenarios)
                parts.append(tf.zeros_like(own) if self.shared else own)
            return tf.concat(parts, axis=-1)
        initial = self._glorot("logit", width, self.tasks if self.per == "scenario" else 1)
        if not self.shared:
            return initial
        first = self.towers // self._choices  # towers that all scenarios share
        return tf.concat([initial[:first], tf.zeros_like(initial[first:])], axis=0)

    def _glorot(self, layer: str, below: int, above: int) -> tf.Tensor:
        """Initial weights of one layer of every tower, (G, below, above)."""
        kind = "tower" if self.per == "both" else self.per
        names = [f"{self.name}/{kind}_{g}/{layer}" for g in range(self.towers)]
        return stacked_glorot(self.seed, names, (below, above))
