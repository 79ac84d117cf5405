"""Normalisation by the statistics of each row's scenario."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras

from lfm4ads_tf.interactions.scenario_embedding import group_of
from lfm4ads_tf.rebuildable import Rebuildable


class PartitionedNorm(Rebuildable, tf_keras.layers.Layer):
    """z' = (g g_s) * (z - mu_s) / sqrt(var_s + eps) + b + b_s for a row of scenario s.

    A row of an unknown scenario has mu and var of all rows, g and b. In training mu and var are
    those of the batch, through which gradients flow: of the scenario's rows where it has two or
    more, else of all rows. At inference they are the moving ones: of the scenario where training
    had two of its rows or more, else of all rows. A training step moves what its batch has rows of:

        w' = m w + n                     n rows; w is their discounted number so far, 0 at first
        mu' = mu + (n / w') (mean - mu)
        var' = (m w var + n batch_var) / w' + (m w n / w'^2) (mean - mu)^2

    so that every row counts alike within a batch, the first batch replaces the initial values, a
    single row moves both, and a scenario without a row keeps w, mu and var as they are, bit by bit.
    Factors g and g_s are kept less 1: weight decay then draws them to 1, not to 0. A layer that is
    not trained moves nothing and normalises by the moving statistics.

    Args:
        scenarios: Number of scenarios S.
        momentum: m, what is left of earlier rows' weight after a batch with rows of the scenario.
        epsilon: eps, added to variances.

    Source: Sheng et al., One Model to Serve All: Star Topology Adaptive Recommender for
    Multi-Domain CTR Prediction (CIKM 2021), Partitioned Normalization.
    """

    def __init__(
        self,
        scenarios: int,
        *,
        momentum: float = 0.99,
        epsilon: float = 1e-5,
        name: str = "partitioned_norm",
    ) -> None:
        super().__init__(name=name)
        self.scenarios = scenarios
        self.momentum = momentum
        self.epsilon = epsilon

    def build(self, input_shape: tuple[tf.TensorShape, tf.TensorShape]) -> None:
        """Makes the weights and the moving statistics for the inputs' width."""
        width, groups = int(input_shape[0][-1]), self.scenarios + 1

        def moving(name: str, shape: tuple[int, ...], initial: str) -> tf.Variable:
            return self.add_weight(
                name=name,
                shape=shape,
                initializer=initial,
                trainable=False,
                experimental_autocast=False,
            )

        self.scale = self.add_weight(name="scale", shape=(width,), initializer="zeros")
        self.bias = self.add_weight(name="bias", shape=(width,), initializer="zeros")
        own = (self.scenarios, width)
        self.own_scale = self.add_weight(name="own_scale", shape=own, initializer="zeros")
        self.own_bias = self.add_weight(name="own_bias", shape=own, initializer="zeros")
        # those of all rows are the last ones
        self.moving_rows = moving("moving_rows", (groups, 1), "zeros")
        self.moving_mean = moving("moving_mean", (groups, width), "zeros")
        self.moving_variance = moving("moving_variance", (groups, width), "ones")
        super().build(input_shape)

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Normalises the rows.

        Args:
            inputs: z (B, d), and the scenario (B,); -1 is unknown.
            training: Whether statistics are the batch's, and move the moving ones.

        Returns:
            z', (B, d).
        """
        values, scenario = inputs
        z = tf.cast(values, self.moving_mean.dtype)
        group = group_of(scenario, self.scenarios)
        if training and self.trainable:
            rows, mean, variance = self._of_batch(z, group)
            self._move(rows, tf.stop_gradient(mean), tf.stop_gradient(variance))
        else:
            rows = self.moving_rows
            mean, variance = tf.identity(self.moving_mean), tf.identity(self.moving_variance)
        # all rows' statistics where a scenario has none of its own, (S + 1, d)
        enough = rows > 1.0
        mean = tf.where(enough, mean, mean[-1:])
        variance = tf.where(enough, variance, variance[-1:])
        scale = 1.0 + tf.cast(self.scale, z.dtype)
        scales = tf.concat(
            [scale * (1.0 + tf.cast(self.own_scale, z.dtype)), scale[tf.newaxis]], axis=0
        )  # (S + 1, d)
        bias = tf.cast(self.bias, z.dtype)
        biases = tf.concat(
            [bias + tf.cast(self.own_bias, z.dtype), bias[tf.newaxis]], axis=0
        )  # (S + 1, d)
        factors = scales / tf.sqrt(variance + self.epsilon)
        mean, factors, biases = (
            _of_rows(each, group) for each in (mean, factors, biases)
        )  # (B, d)
        return tf.cast((z - mean) * factors + biases, self.compute_dtype)

    def _of_batch(self, z: tf.Tensor, group: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Rows (S + 1, 1), means and variances (S + 1, d) of each scenario and of all rows.

        Those of all rows are made of the scenarios' and of what rows of no scenario give.
        """
        rows = _sums(tf.ones_like(z[:, :1]), group, self.scenarios + 1)  # (S + 1, 1)
        divisor = tf.maximum(rows, 1.0)
        mean = _sums(z, group, self.scenarios + 1) / divisor
        apart = tf.square(z - _of_rows(mean, group))
        variance = _sums(apart, group, self.scenarios + 1) / divisor
        every = tf.reduce_sum(rows, axis=0, keepdims=True)  # (1, 1)
        share = rows / tf.maximum(every, 1.0)
        of_all = tf.reduce_sum(share * mean, axis=0, keepdims=True)
        between = tf.square(mean - of_all)
        spread = tf.reduce_sum(share * (variance + between), axis=0, keepdims=True)
        return (
            tf.concat([rows[:-1], every], axis=0),
            tf.concat([mean[:-1], of_all], axis=0),
            tf.concat([variance[:-1], spread], axis=0),
        )

    def _move(self, rows: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor) -> None:
        """Moves the moving statistics by those of a batch.

        They are overwritten: of two workers that move them at once the later one holds. Were both
        differences added, a first mean would be there twice.
        """
        before, moving_mean = tf.identity(self.moving_rows), tf.identity(self.moving_mean)
        total = self.momentum * before + rows
        share = rows / tf.maximum(total, 1.0)  # 0 without rows: nothing moves
        apart = mean - moving_mean
        self.moving_variance.assign(
            (1.0 - share) * self.moving_variance
            + share * (variance + (1.0 - share) * tf.square(apart))
        )
        self.moving_mean.assign(moving_mean + share * apart)
        self.moving_rows.assign(tf.where(rows > 0.0, total, before))


def _sums(values: tf.Tensor, group: tf.Tensor, groups: int) -> tf.Tensor:
    """Sums over the rows of each group, (B, d) -> (G, d), as a product with the groups' rows.

    G B d multiplications by 0 and 1, which up to some 64 groups take less time than sums that go
    from row to row; more scenarios have more weights of their own than that.
    """
    pick = tf.one_hot(group, groups, dtype=values.dtype)  # (B, G)
    return tf.matmul(pick, values, transpose_a=True)


def _of_rows(values: tf.Tensor, group: tf.Tensor) -> tf.Tensor:
    """What each row's group has, (G, d) -> (B, d)."""
    groups = values.shape[0]

    @tf.custom_gradient
    def looked_up(of_groups: tf.Tensor) -> tuple[tf.Tensor, Any]:
        def grad(upstream: tf.Tensor) -> tf.Tensor:
            return _sums(upstream, group, groups)

        return tf.gather(of_groups, group), grad

    return looked_up(values)
