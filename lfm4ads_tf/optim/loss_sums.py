"""Sums of the named losses over the steps of a phase."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf


class LossSums:
    """Running sums, kept beside the step's graph so that no step waits for its loss.

    They are float64, so that a resumed phase, whose sums come from a checkpoint, ends with those
    of an uninterrupted one.
    """

    def __init__(self) -> None:
        self._sums: dict[str, tf.Variable] = {}
        self._start: dict[str, float] = {}

    def start(self, sums: Mapping[str, float]) -> None:
        """Sets the sums, 0 for names that are not given."""
        self._start = dict(sums)
        for name, variable in self._sums.items():
            variable.assign(sums.get(name, 0.0))

    def add(self, terms: Mapping[str, tf.Tensor]) -> None:
        """Adds the losses of a step; part of its graph."""
        for name, term in terms.items():
            if name not in self._sums:
                with tf.init_scope():  # a variable of the process, not of the graph
                    first = tf.constant(self._start.get(name, 0.0), tf.float64)
                    self._sums[name] = tf.Variable(first, trainable=False, name=f"sum_{name}")
            self._sums[name].assign_add(tf.cast(term, tf.float64))

    def values(self) -> dict[str, float]:
        """The sums by name; before the first step those that they start from."""
        return self._start | {name: float(v.numpy()) for name, v in self._sums.items()}
