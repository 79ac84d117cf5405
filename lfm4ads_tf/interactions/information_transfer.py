"""Vectors of tasks in a sequence, each made of its own and of the one before it."""

from __future__ import annotations

from math import sqrt
from typing import Any

import tensorflow as tf
import tf_keras

from lfm4ads_tf.interactions.expert_bank import constant
from lfm4ads_tf.precision import product
from lfm4ads_tf.rebuildable import Rebuildable
from lfm4ads_tf.seeding import glorot


class InformationTransfer(Rebuildable, tf_keras.layers.Layer):
    """v_1 = q_1, and v_t = sum over w in {q_t, r_t} of a_w h3_t(w), for T tasks in a sequence.

        r_t = relu(W_t v_(t-1) + b_t),  a = softmax over w of <h1_t(w), h2_t(w)> / sqrt(h)

    h1_t, h2_t and h3_t are linear without a bias, and one product. Initial weights depend on seed,
    name and number of the task.

    Args:
        seed: Seed of the initial weights.

    Source: Xi et al., Modeling the Sequential Dependence among Audience Multi-step Conversions with
    Multi-task Learning in Targeted Display Advertising (KDD 2021).
    """

    def __init__(self, *, seed: int = 0, name: str = "transfer") -> None:
        super().__init__(name=name)
        self.seed = seed

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes the weights of every task behind the first."""
        tasks, width = int(input_shape[1]), int(input_shape[2])

        def weight(name: str, initial: tf.Tensor) -> Any:
            return self.add_weight(name=name, shape=initial.shape, initializer=constant(initial))

        self.steps: list[tuple[tf.Variable, tf.Variable, tf.Variable]] = []
        for t in range(1, tasks):
            of_task = f"{self.name}/task_{t}"
            kernel = glorot(self.seed, f"{of_task}/transfer")((width, width))
            maps = [glorot(self.seed, f"{of_task}/h{k}")((width, width)) for k in (1, 2, 3)]
            self.steps.append(
                (
                    weight(f"kernel_{t}", kernel),
                    weight(f"bias_{t}", tf.zeros([width])),
                    weight(f"attention_{t}", tf.concat(maps, axis=-1)),  # (h, 3 h)
                )
            )
        super().build(input_shape)

    def call(self, vectors: tf.Tensor) -> tf.Tensor:
        """Hands the tasks' vectors on.

        Args:
            vectors: q, (B, T, h), in the order of the sequence.

        Returns:
            v: (B, T, h).
        """
        first, *others = tf.unstack(vectors, axis=1)  # (B, h) each
        handed, width = [first], first.shape[-1]
        for own, (kernel, bias, attention) in zip(others, self.steps, strict=True):
            told = tf.nn.relu(product(handed[-1], kernel) + bias)  # r, (B, h)
            both = tf.concat([own, told], axis=0)  # (2 B, h)
            h1, h2, h3 = tf.split(product(both, attention), 3, axis=-1)  # (2 B, h) each
            scores = tf.reduce_sum(h1 * h2, axis=-1) / sqrt(width)  # (2 B,)
            weights = tf.nn.softmax(tf.reshape(scores, [2, -1]), axis=0)  # (2, B)
            values = tf.reshape(h3, [2, -1, width])  # (2, B, h)
            handed.append(tf.reduce_sum(weights[:, :, tf.newaxis] * values, axis=0))  # (B, h)
        return tf.stack(handed, axis=1)
