"""Experts over inputs of several widths, mixed by one gate per task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import tensorflow as tf
import tf_keras

from lfm4ads_tf.interactions.expert_bank import ExpertBank
from lfm4ads_tf.interactions.gate_bank import GateBank
from lfm4ads_tf.rebuildable import Rebuildable

Inputs: TypeAlias = Sequence[tf.Tensor] | tf.Tensor


class GroupMixture(Rebuildable, tf_keras.layers.Layer):
    """m_t = sum_g softmax(G_t([x^0; ...; x^(n-1)]))_g f_g(x^g): an expert for each of n inputs.

    The inputs x^g may differ in width; the experts end in one width h.

    Args:
        inputs: Number of inputs n.
        units: Width of each layer of an expert, at least one; the last one is h.
        tasks: Number of tasks T, each with a gate.
        gate_units: Hidden units of a gate.
        gate_bias: Whether a gate's scores have a bias.
        seed: Seed of the initial weights.

    Source: Pan et al., Ads Recommendation in a Collapsed and Entangled World (KDD 2024), section on
    asymmetric embeddings; its equations are known at second hand.
    """

    def __init__(
        self,
        inputs: int,
        units: Sequence[int],
        tasks: int,
        *,
        gate_units: Sequence[int] = (),
        gate_bias: bool = False,
        seed: int = 0,
        name: str = "experts",
    ) -> None:
        super().__init__(name=name)
        self.experts = [ExpertBank([0], units, seed=seed, name=f"input_{g}") for g in range(inputs)]
        sees = [[True] * inputs] * tasks
        self.gates = GateBank(sees, units=gate_units, bias=gate_bias, seed=seed, name="gates")

    def weights_of(self, inputs: Inputs, training: bool = False) -> tf.Tensor:
        """What each expert is mixed with, (B, T, n); the last axis sums to 1.

        Args:
            inputs: x^g, (B, d_g) each, or (n, B, d) of one width.
            training: Whether compiled kernels may be used; an exported graph holds none.
        """
        return self.gates.weights_of(tf.concat(_apart(inputs), axis=-1), training)

    def call(self, inputs: Inputs, training: bool = False) -> tf.Tensor:
        """Mixes the experts' outputs for every task.

        Args:
            inputs: x^g, (B, d_g) each, or (n, B, d) of one width.
            training: Whether compiled kernels may be used; an exported graph holds none.

        Returns:
            m: (B, T, h).
        """
        each = _apart(inputs)
        pairs = zip(self.experts, each, strict=True)
        outputs = tf.concat([expert(x, training=training) for expert, x in pairs], axis=1)
        read = tf.concat(each, axis=-1)  # (B, sum of d_g)
        return self.gates((read, outputs), training=training)  # outputs (B, n, h)


def _apart(inputs: Inputs) -> list[tf.Tensor]:
    """n of (B, d_g)."""
    return tf.unstack(inputs) if tf.is_tensor(inputs) else [*inputs]
