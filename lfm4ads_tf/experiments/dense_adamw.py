"""AdamW that moves and decays every entry of every variable at every step."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


class DenseAdamW(tf.Module):
    """AdamW as PyTorch computes it, embedding tables densified.

        w <- w (1 - lr d);  m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2
        w <- w - lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps)

    Keras adds eps before the bias correction of v. Gradients of rarely seen rows are so small that
    the place of eps matters.

    Args:
        variables: What is trained. A step costs the tables, not the batch: for comparisons only.
        learning_rate: lr.
        weight_decay: d.
        beta_1, beta_2: Decays of the moments, b1 and b2.
        epsilon: eps.

    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.
    """

    def __init__(
        self,
        variables: Sequence[tf.Variable],
        *,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__(name="dense_adamw")
        self._variables = list(variables)
        self._rate, self._decay, self._epsilon = learning_rate, weight_decay, epsilon
        self._betas = (beta_1, beta_2)
        self._first = [tf.Variable(tf.zeros_like(v), trainable=False) for v in self._variables]
        self._second = [tf.Variable(tf.zeros_like(v), trainable=False) for v in self._variables]
        self._step = tf.Variable(0.0, trainable=False)

    def apply(self, gradients: Sequence[tf.Tensor | tf.IndexedSlices]) -> None:
        """One step.

        Args:
            gradients: One per variable; those of a lookup are made dense.
        """
        beta_1, beta_2 = self._betas
        step = self._step.assign_add(1.0)
        rate = self._rate / (1.0 - tf.pow(beta_1, step))
        correction = tf.sqrt(1.0 - tf.pow(beta_2, step))
        for variable, first, second, gradient in zip(
            self._variables, self._first, self._second, gradients, strict=True
        ):
            dense = tf.convert_to_tensor(gradient)
            m = first.assign(beta_1 * first + (1.0 - beta_1) * dense)
            v = second.assign(beta_2 * second + (1.0 - beta_2) * tf.square(dense))
            change = rate * m / (tf.sqrt(v) / correction + self._epsilon)
            variable.assign(variable * (1.0 - self._rate * self._decay) - change)
