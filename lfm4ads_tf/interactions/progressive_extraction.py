"""Levels of experts, some of a task's own and some shared by all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from lfm4ads_tf.interactions.expert_bank import ExpertBank
from lfm4ads_tf.interactions.experts import ExpertMixture
from lfm4ads_tf.interactions.gate_bank import GateBank
from lfm4ads_tf.rebuildable import Rebuildable


class ProgressiveExtraction(Rebuildable, tf_keras.layers.Layer):
    """z_t^l = sum_e softmax(G_t^l(z_t^(l-1)))_e o_e^l over task t's own and the shared experts.

        o_{t,k}^l = f_{t,k}^l(z_t^(l-1)), k = 1 ... K1
        o_{S,k}^l = f_{S,k}^l(z_S^(l-1)), k = 1 ... K2
        z_S^l = sum_e softmax(G_S^l(z_S^(l-1)))_e o_e^l over all T K1 + K2 experts

    with z^0 = x; the last level has no z_S. Experts are in the order of the tasks, shared ones
    behind. In the first level, where all read x, experts and gates are one matrix product, as in
    `ExpertMixture`; in the others all experts' first layers are one batched product.

    Args:
        levels: Number of levels L.
        tasks: Number of tasks T.
        own: Experts of each task in a level, K1.
        shared: Shared experts of a level, K2.
        units: Width of each layer of an expert, at least one; the last one is h.
        gate_units: Hidden units of a gate.
        gate_bias: Whether a gate's scores have a bias.
        seed: Seed of the initial weights.

    Source: Tang et al., Progressive Layered Extraction (PLE): A Novel Multi-Task Learning Model
    for Personalized Recommendations (RecSys 2020).
    """

    def __init__(
        self,
        levels: int,
        tasks: int,
        own: int,
        shared: int,
        units: Sequence[int],
        *,
        gate_units: Sequence[int] = (),
        gate_bias: bool = False,
        seed: int = 0,
        name: str = "extraction",
    ) -> None:
        super().__init__(name=name)
        self.tasks = tasks
        reads = [t for t in range(tasks) for _ in range(own)] + [tasks] * shared
        # a task's gate sees its own experts and the shared ones, the shared gate all
        task_gates = [[read in (t, tasks) for read in reads] for t in range(tasks)]
        both = [*task_gates, [True] * len(reads)]
        gates: dict[str, Any] = {"gate_units": gate_units, "gate_bias": gate_bias}
        self.first = ExpertMixture(
            len(reads),
            units,
            tasks + int(levels > 1),
            sees=both if levels > 1 else task_gates,
            **gates,
            seed=seed,
            name="level_1",
        )
        self.experts = [
            ExpertBank(reads, units, seed=seed, name=f"level_{level}")
            for level in range(2, levels + 1)
        ]
        self.gates = [
            GateBank(
                both if level < levels else task_gates,
                units=gate_units,
                bias=gate_bias,
                seed=seed,
                name=f"level_{level}_gates",
            )
            for level in range(2, levels + 1)
        ]

    def call(self, stream: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Extracts the tasks' vectors.

        Args:
            stream: x, (B, d).
            training: Whether compiled kernels may be used; an exported graph holds none.

        Returns:
            z^L: (B, T, h).
        """
        mixed = self.first(stream, training=training)  # (B, T + 1, h), or (B, T, h) at the end
        for experts, gates in zip(self.experts, self.gates, strict=True):
            read = tf.transpose(mixed, [1, 0, 2])  # (T + 1, B, h)
            outputs = experts(read, training=training)  # (B, E, h)
            mixed = gates((read[: gates.mix.gates], outputs), training=training)
        return mixed
