"""Weighted sums of experts' outputs, by which each gate sees and cuts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

Pairs = Sequence[Sequence[bool]]
"""For each gate, yes or no for each expert, (G, E)."""


class ExpertMix:
    """Which experts each of some gates sees and cuts, without any weights.

    Args:
        sees: Which experts each gate sees, (G, E), at least one.
        cuts: Which experts each gate cuts, (G, E); none where absent.

    Attributes:
        gates: Number of gates G.
        experts: Number of experts E.
        counts: How many experts each gate sees.

    Raises:
        ValueError: A gate sees no expert, or `sees` and `cuts` differ in size.
    """

    def __init__(self, sees: Pairs, cuts: Pairs | None = None) -> None:
        self._sees = np.array([list(row) for row in sees], bool)  # (G, E)
        if self._sees.ndim != 2 or not self._sees.any(axis=1).all():
            raise ValueError("Every gate needs an expert that it sees.")
        self._cuts = np.zeros_like(self._sees)
        if cuts is not None:
            self._cuts = np.array([list(row) for row in cuts], bool)
        if self._cuts.shape != self._sees.shape:
            raise ValueError(
                f"Gates that see {self._sees.shape} experts cannot cut {self._cuts.shape}."
            )
        self.gates, self.experts = self._sees.shape
        self.counts = [int(count) for count in self._sees.sum(axis=1)]

    def weights(self, scores: tf.Tensor) -> tf.Tensor:
        """Softmax of each gate's scores.

        Args:
            scores: Gate by gate those of the experts that it sees, (B, sum of the counts).

        Returns:
            a: (B, G, E).
        """
        if self._sees.all():
            return tf.nn.softmax(tf.reshape(scores, [-1, self.gates, self.experts]))
        # the column behind the last one stands for the experts that are not seen
        places = np.full(self._sees.shape, sum(self.counts))
        places[self._sees] = np.arange(sum(self.counts))
        unseen = tf.fill([tf.shape(scores)[0], 1], tf.constant(-np.inf, scores.dtype))
        every = tf.gather(tf.concat([scores, unseen], axis=-1), places.ravel(), axis=-1)
        return tf.nn.softmax(tf.reshape(every, [-1, self.gates, self.experts]))  # exp(-inf) is 0

    def mixed(self, weights: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """The mixtures.

        Args:
            weights: a, (B, G, E).
            outputs: o, (B, E, h).

        Returns:
            m: (B, G, h).
        """
        if not self._cuts.any():
            return tf.matmul(weights, outputs)
        kept = tf.constant(~self._cuts, weights.dtype)  # (G, E)

        # the product is that of gates without a cut, bit by bit; a sum of two would not be
        @tf.custom_gradient
        def cut(a: tf.Tensor, o: tf.Tensor) -> tuple[tf.Tensor, Any]:
            def grad(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                of_weights = tf.matmul(upstream, o, transpose_b=True)  # (B, G, E)
                return of_weights, tf.matmul(a * kept, upstream, transpose_a=True)

            return tf.matmul(a, o), grad

        return cut(weights, outputs)
