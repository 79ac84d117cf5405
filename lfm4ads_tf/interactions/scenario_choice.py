"""Which scenarios' logits a row has."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tf_keras

from lfm4ads_tf.rebuildable import Rebuildable

_LOG = logging.getLogger(__name__)


class ScenarioChoice(Rebuildable, tf_keras.layers.Layer):
    """z = sum_c choice_c z_c, with the choice of a row among the logits of S scenarios.

        known scenario s:  choice_s = 1, all others 0
        unknown scenario:  choice_s = n_s / sum_s' n_s'; 1 / S where nothing is counted yet

    n_s is the number of rows of scenario s that this layer was trained on, those of the step itself
    among them; rows of unknown scenarios count nowhere. It is an integer of 64 bits, exact for any
    log. A layer that is not trained counts nothing. Where a logit is shared, its choice is 1 for
    every row and stands before the others; an unknown scenario has it alone, and nothing is
    counted.

    Args:
        scenarios: Number of scenarios S.
        shared: Whether a logit is shared by all scenarios.

    Attributes:
        rows: n, (S,) int64; None with a shared logit.
    """

    def __init__(
        self, scenarios: int, *, shared: bool = False, name: str = "scenario_choice"
    ) -> None:
        super().__init__(name=name)
        self.scenarios = scenarios
        self.shared = shared
        self.rows: tf.Variable | None = None

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes the count."""
        if not self.shared:
            self.rows = self.add_weight(
                name="rows",
                shape=(self.scenarios,),
                dtype=tf.int64,
                initializer="zeros",
                trainable=False,
                aggregation=tf.VariableAggregation.SUM,  # replicas count rows of their own
            )
        super().build(input_shape)

    def call(self, scenario: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Chooses for each row, and in training counts the rows.

        Args:
            scenario: (B,) index; -1 is unknown.
            training: Whether the rows are trained on: they are counted.

        Returns:
            The choice (B, S), with a shared logit (B, 1 + S).
        """
        own = tf.one_hot(scenario, self.scenarios, dtype=self.compute_dtype)  # (B, S)
        if self.rows is None:
            return tf.concat([tf.ones_like(scenario[:, tf.newaxis], own.dtype), own], axis=-1)
        if training and self.trainable:
            known = tf.one_hot(scenario, self.scenarios, dtype=self.rows.dtype)
            self.rows.assign_add(tf.reduce_sum(known, axis=0))
        unknown = tf.cast(scenario < 0, own.dtype)[:, tf.newaxis]  # (B, 1)
        return own + unknown * self._shares()

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Loads the count; files of versions before it leave all scenarios alike, and it is told.

        Args:
            store: Name -> values, of the `.keras` file.
        """
        if self.rows is not None and not store:
            self.rows.assign(tf.zeros_like(self.rows))
            tell_uncounted("a .keras file")
            return
        super().load_own_variables(store)

    def _shares(self) -> tf.Tensor:
        """The scenarios' shares of the rows, (S,)."""
        rows = tf.cast(self.rows, tf.float64)  # float32 has not every number beyond 2^24
        every = tf.reduce_sum(rows)
        alike = tf.ones_like(rows) / self.scenarios
        shares = tf.where(every > 0.0, rows / tf.maximum(every, 1.0), alike)
        return tf.cast(shares, self.compute_dtype)


def tell_uncounted(where: str) -> None:
    """Warns of weights without the count, of a version before it.

    Args:
        where: What was read.
    """
    _LOG.warning(
        "The weights in %s are of a version that did not count the rows of scenarios: a row of an "
        "unknown scenario gets the mean of all scenarios' logits, each alike; train the model "
        "again for a mean by the training rows.",
        where,
    )
