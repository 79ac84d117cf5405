"""Experts that each read a set of inputs of their own, mixed by one gate per task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import tensorflow as tf
import tf_keras

from lfm4ads_tf.interactions.expert_bank import ExpertBank
from lfm4ads_tf.interactions.gate_bank import GateBank
from lfm4ads_tf.rebuildable import Rebuildable

GateRead = Literal["mean", "joined"]


class SetMixture(Rebuildable, tf_keras.layers.Layer):
    """m_t = sum_e softmax(G_t(v))_e f_e(x^e): expert e reads set e, every gate the same v.

        v = (x^0 + ... + x^(E-1)) / E (`mean`), or [x^0; ...; x^(E-1)] (`joined`)

    Args:
        experts: Number of experts E and of sets.
        units: Width of each layer of an expert, at least one; the last one is h.
        tasks: Number of tasks T, each with a gate.
        gate_input: What the gates read.
        gate_units: Hidden units of a gate.
        gate_bias: Whether a gate's scores have a bias.
        seed: Seed of the initial weights.

    Source: Ma et al., Modeling Task Relationships in Multi-task Learning with Multi-gate
    Mixture-of-Experts (KDD 2018), there with one set for all experts.
    """

    def __init__(
        self,
        experts: int,
        units: Sequence[int],
        tasks: int,
        *,
        gate_input: GateRead = "mean",
        gate_units: Sequence[int] = (),
        gate_bias: bool = False,
        seed: int = 0,
        name: str = "experts",
    ) -> None:
        super().__init__(name=name)
        self.gate_input = gate_input
        self.experts = ExpertBank(range(experts), units, seed=seed, name="of_sets")
        sees = [[True] * experts] * tasks
        self.gates = GateBank(sees, units=gate_units, bias=gate_bias, seed=seed, name="gates")

    def call(self, sets: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Mixes the experts' outputs for every task.

        Args:
            sets: x, (E, B, d).
            training: Whether compiled kernels may be used; an exported graph holds none.

        Returns:
            m: (B, T, h).
        """
        outputs = self.experts(sets, training=training)  # (B, E, h)
        if self.gate_input == "mean":
            read = tf.reduce_mean(sets, axis=0)  # (B, d)
        else:
            read = tf.concat(tf.unstack(sets), axis=-1)  # (B, E d)
        return self.gates((read, outputs), training=training)
