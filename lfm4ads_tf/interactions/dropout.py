"""Dropout whose masks survive a restart."""

from __future__ import annotations

import tensorflow as tf
import tf_keras

from lfm4ads_tf.rebuildable import Rebuildable
from lfm4ads_tf.seeding import derive


class Dropout(Rebuildable, tf_keras.layers.Layer):
    """y = x * m / (1 - rate), with m ~ Bernoulli(1 - rate), in training only.

    The mask is a function of (seed, name, step), and the step is a variable that checkpoints
    carry: a run that is killed and resumed drops the same units as an uninterrupted one.

    Args:
        rate: Share of units dropped.
        seed: Seed of the masks.
    """

    def __init__(self, rate: float, *, seed: int = 0, name: str | None = None) -> None:
        super().__init__(name=name)
        self.rate = rate
        self._key = derive(seed, self.name)
        if rate > 0:
            self._step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Drops units in training; see the class."""
        if not training or self.rate == 0:
            return inputs
        step = self._step.assign_add(1)
        seed = tf.stack([tf.constant(self._key, tf.int64), step])
        mask = tf.random.stateless_uniform(tf.shape(inputs), seed=seed) >= self.rate
        return tf.where(mask, inputs / (1 - self.rate), tf.zeros([], inputs.dtype))
