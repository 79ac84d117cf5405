"""A vector of each scenario."""

from __future__ import annotations

import tensorflow as tf
import tf_keras

from lfm4ads_tf.interactions.expert_bank import constant
from lfm4ads_tf.rebuildable import Rebuildable
from lfm4ads_tf.seeding import derive

_DEVIATION = 0.01
"""Of the initial values, as a table's of the embeddings."""


class ScenarioEmbedding(Rebuildable, tf_keras.layers.Layer):
    """e_s for a row of scenario s, from a small table of its own that moves with the dense layers.

    The initial values of a scenario depend on seed, name and number of the scenario alone. A row of
    an unknown scenario gets the last of S + 1 rows, which starts at zero and is trained by rows
    without a scenario alone; or zeros.

    Args:
        scenarios: Number of scenarios S.
        dim: Width of the vectors.
        unknown: Whether an unknown scenario has a vector of its own.
        seed: Seed of the initial values.
    """

    def __init__(
        self,
        scenarios: int,
        dim: int,
        *,
        unknown: bool = True,
        seed: int = 0,
        name: str = "scenario",
    ) -> None:
        super().__init__(name=name)
        self.scenarios = scenarios
        self.dim = dim
        self.unknown = unknown
        self.seed = seed

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes the table."""
        rows = [
            tf_keras.initializers.RandomNormal(
                stddev=_DEVIATION, seed=derive(self.seed, f"{self.name}/scenario_{s}")
            )((1, self.dim))
            for s in range(self.scenarios)
        ]
        if self.unknown:
            rows.append(tf.zeros_like(rows[0]))
        initial = tf.concat(rows, axis=0)
        self.table = self.add_weight(
            name="table", shape=initial.shape, initializer=constant(initial)
        )
        super().build(input_shape)

    def call(self, scenario: tf.Tensor) -> tf.Tensor:
        """Looks the vectors up, as a product: its gradient is a sum in the order of the rows.

        Args:
            scenario: (B,) index; -1 is unknown.

        Returns:
            (B, dim).
        """
        group = group_of(scenario, self.scenarios)
        # (B, S [+ 1]): a place beyond the last one has zeros
        pick = tf.one_hot(group, self.table.shape[0], dtype=self.compute_dtype)
        return tf.matmul(pick, self.table)


def group_of(scenario: tf.Tensor, scenarios: int) -> tf.Tensor:
    """The scenario's index, S for an unknown one, which is -1; (B,) int32."""
    unknown = tf.constant(scenarios, scenario.dtype)
    return tf.cast(tf.where(scenario < 0, unknown, scenario), tf.int32)
