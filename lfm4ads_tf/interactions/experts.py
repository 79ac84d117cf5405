"""Experts that all gates read, mixed by one gate per task."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from lfm4ads_tf.interactions.expert_bank import ExpertBank
from lfm4ads_tf.interactions.expert_mix import ExpertMix, Pairs
from lfm4ads_tf.interactions.gate_bank import GateBank, gate_columns


class ExpertMixture(ExpertBank):
    """m_t = sum_e g_{t,e} f_e(x) with g_t = softmax(G_t(x)), for E experts and T tasks.

        f_e(x) = relu(W_{e,n} ... relu(W_{e,1} x + b_{e,1}) ... + b_{e,n}),  G_t(x) = W_t x

    The first layers of all experts and all gates are one matrix product of x, a deeper layer of all
    experts is one batched product. Each W starts as a Glorot-uniform matrix of its own, whose
    values depend on seed, name and number of the expert or task: one more of either leaves the
    others' as they are, except that the width of a gate is the number of experts that it sees.

    Args:
        experts: Number of experts E.
        units: Width of each layer of an expert, at least one; the last one is h.
        tasks: Number of tasks T, each with a gate.
        gate_units: Hidden units of a gate, which is then a `GateBank` of its own.
        gate_bias: Whether a gate's scores have a bias.
        sees: Which experts each gate sees, (T, E); all where absent.
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
        gate_units: Sequence[int] = (),
        gate_bias: bool = False,
        sees: Pairs | None = None,
        seed: int = 0,
        name: str = "experts",
    ) -> None:
        super().__init__([0] * experts, units, seed=seed, name=name)
        self.tasks = tasks
        sees = [[True] * experts] * tasks if sees is None else sees
        self._mix = ExpertMix(sees)
        self._affine = gate_bias
        self.gates: GateBank | None = None
        if gate_units:
            self.gates = GateBank(
                sees, units=gate_units, bias=gate_bias, seed=seed, name=f"{name}_gates"
            )

    def columns_beside(self, width: int) -> list[tf.Tensor]:
        """The gates' matrices, gate by gate, where they have no hidden units."""
        if self.gates is not None:
            return []
        names = [f"{self.name}/gate_{t}" for t in range(self.tasks)]
        return [gate_columns(self.seed, names, width, self._mix.counts)]

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes the fused weights for the stream's width."""
        super().build(input_shape)
        if self.gates is not None:
            with tf.name_scope(self.gates.name):
                self.gates.build((input_shape, None))
        elif self._affine:
            self.gate_bias = self.add_weight(
                name="gate_bias", shape=(sum(self._mix.counts),), initializer="zeros"
            )

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
        outputs, scores = self.outputs_and_beside(stream, training)
        if self.gates is not None:
            return outputs, self.gates.weights_of(stream, training)
        if self._affine:
            scores += self.gate_bias
        return outputs, self._mix.weights(scores)

    def call(self, stream: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Mixes the experts' outputs for every task.

        Args:
            stream: x, (B, d).
            training: Whether compiled kernels may be used; an exported graph holds none.

        Returns:
            m: (B, T, h).
        """
        outputs, gates = self.outputs_and_gates(stream, training)
        return self._mix.mixed(gates, outputs)
