"""Experts that all tasks share, mixed by one gate per task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from lfm4ads_tf.kernels.bias import add_bias
from lfm4ads_tf.precision import product
from lfm4ads_tf.rebuildable import Rebuildable
from lfm4ads_tf.seeding import glorot


class ExpertMixture(Rebuildable, tf_keras.layers.Layer):
    """m_t = sum_e g_{t,e} f_e(x) with g_t = softmax(W_t x), for E experts and T tasks.

        f_e(x) = relu(W_{e,n} ... relu(W_{e,1} x + b_{e,1}) ... + b_{e,n})

    The first layers of all experts and all gates are one matrix product of x, a deeper layer of all
    experts is one batched product. Each W starts as a Glorot-uniform matrix of its own, whose
    values depend on seed, name and number of the expert or task: one more of either leaves the
    others' as they are, except that the width of a gate is E.

    Args:
        experts: Number of experts E.
        units: Width of each layer of an expert, at least one; the last one is h.
        tasks: Number of tasks T.
        seed: Seed of the initial weights.

    Source: Ma et al., Modeling Task Relationships in Multi-task Learning with Multi-gate
    Mixture-of-Experts (KDD 2018), section 4.2.
    """

    def __init__(
        self,
        experts: int,
        units: Sequence[int],
        tasks: int,
        *,
        seed: int = 0,
        name: str = "experts",
    ) -> None:
        super().__init__(name=name)
        if not units:
            raise ValueError("An expert needs at least one layer.")
        self.experts = experts
        self.units = list(units)
        self.tasks = tasks
        self.seed = seed

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes the fused weights for the stream's width."""
        width, first = int(input_shape[-1]), self.units[0]
        names = [f"{self.name}/expert_{e}" for e in range(self.experts)]
        gates = [f"{self.name}/gate_{t}" for t in range(self.tasks)]
        # (d, E h_1 + T E): expert by expert, then gate by gate
        initial = tf.concat(
            [glorot(self.seed, f"{n}/1")((width, first)) for n in names]
            + [glorot(self.seed, n)((width, self.experts)) for n in gates],
            axis=-1,
        )
        self.kernel = self.add_weight(
            name="kernel", shape=initial.shape, initializer=constant(initial)
        )
        self.bias = self.add_weight(name="bias", shape=(self.experts * first,), initializer="zeros")
        self.deeper: list[tuple[tf.Variable, tf.Variable]] = []
        pairs = zip(self.units[:-1], self.units[1:], strict=True)
        for k, (below, above) in enumerate(pairs, start=2):
            initial = stacked_glorot(self.seed, [f"{n}/{k}" for n in names], (below, above))
            kernel = self.add_weight(
                name=f"kernel_{k}", shape=initial.shape, initializer=constant(initial)
            )  # (E, h_{k-1}, h_k)
            bias = self.add_weight(
                name=f"bias_{k}", shape=(self.experts, 1, above), initializer="zeros"
            )
            self.deeper.append((kernel, bias))
        super().build(input_shape)

    def outputs_and_gates(
        self, stream: tf.Tensor, training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """What is mixed, and with which weights.

        Args:
            stream: x, (B, d).
            training: Whether compiled kernels may be used; an exported graph holds none.

        Returns:
            f_e(x) (B, E, h) and g (B, T, E), whose last axis sums to 1.
        """
        fused = product(stream, self.kernel)  # (B, E h_1 + T E)
        first = self.experts * self.units[0]
        hidden, scores = tf.split(fused, [first, self.tasks * self.experts], axis=-1)
        gates = tf.nn.softmax(tf.reshape(scores, [-1, self.tasks, self.experts]))  # (B, T, E)
        add = add_bias if training else tf.nn.bias_add
        hidden = tf.nn.relu(add(hidden, self.bias))  # (B, E h_1)
        hidden = tf.reshape(hidden, [-1, self.experts, self.units[0]])  # (B, E, h_1)
        if self.deeper:
            hidden = tf.transpose(hidden, [1, 0, 2])  # (E, B, h_1)
            for kernel, bias in self.deeper:
                hidden = tf.nn.relu(product(hidden, kernel) + bias)  # (E, B, h_k)
            hidden = tf.transpose(hidden, [1, 0, 2])  # (B, E, h)
        return hidden, gates

    def call(self, stream: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Mixes the experts' outputs for every task.

        Args:
            stream: x, (B, d).
            training: Whether compiled kernels may be used; an exported graph holds none.

        Returns:
            m: (B, T, h).
        """
        outputs, gates = self.outputs_and_gates(stream, training)
        return tf.matmul(gates, outputs)


def stacked_glorot(seed: int, names: Sequence[str], shape: tuple[int, int]) -> tf.Tensor:
    """One Glorot-uniform matrix per name, each of its own scale and values, (N, *shape)."""
    return tf.stack([glorot(seed, name)(shape) for name in names])


def constant(value: tf.Tensor) -> Any:
    """An initialiser that gives these values."""
    return lambda shape, dtype=None, **_: tf.cast(value, dtype or value.dtype)
