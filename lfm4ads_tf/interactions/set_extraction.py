"""Levels of experts over sets of inputs, some of a task's own and some shared by all."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal

import numpy as np
import tensorflow as tf
import tf_keras

from lfm4ads_tf.interactions.expert_bank import ExpertBank
from lfm4ads_tf.interactions.gate_bank import GateBank
from lfm4ads_tf.precision import in_bfloat16
from lfm4ads_tf.rebuildable import Rebuildable

Others = Literal["cut", "open", "hidden"]
GateInput = Literal["sum", "task"]


class SetExtraction(Rebuildable, tf_keras.layers.Layer):
    """z_t^l = sum_e softmax(G_t^l(v_t^(l-1)))_e o_e^l: task t's experts and gate read set k(t).

        o_{t,k}^l = f_{t,k}^l(z_t^(l-1)), k = 1 ... K1
        o_{S,k}^l = f_{S,k}^l(z_S^(l-1)), k = 1 ... K2
        v_t = z_t + z_S (`sum`), or z_t (`task`)

    with z_t^0 = x^{k(t)} and z_S^0 = x^{K-1}, the last set. Experts are in the order of the tasks,
    shared ones behind. A task's gate sees its own experts and the shared ones; those of other tasks
    it does not see (`hidden`), sees with their gradient (`open`), or sees without (`cut`): their
    values count and nothing of its loss reaches them or their set. Below the last level a shared
    gate G_S reads z_S and mixes all experts to z_S^l; it cuts the tasks' own where `strict`, for
    otherwise a task's loss reaches another's set through the shared experts of the next level.
    Without shared experts there is neither a shared set nor a shared gate.

    Args:
        levels: Number of levels L.
        reads: For each task, the set that it reads, counted from 0; the set behind the highest one
            is the shared one.
        own: Experts of each task in a level, K1.
        shared: Shared experts of a level, K2; without any, all sets are the tasks' own.
        units: Width of each layer of an expert, at least one; the last one is h.
        others: What a task's gate does with other tasks' experts.
        alone: Tasks, by number, whose gate sees no other task's experts whatever `others` says.
        gate_input: What a task's gate reads.
        strict: Whether the shared gate cuts the tasks' own experts.
        shared_output: Whether the last level has a shared gate too, whose z_S^L stands behind the
            tasks' vectors.
        gate_units: Hidden units of a gate.
        gate_bias: Whether a gate's scores have a bias.
        seed: Seed of the initial weights.

    Raises:
        ValueError: Without shared experts, gates read z_S or mix them.

    Source: Su et al., STEM: Unleashing the Power of Embeddings for Multi-task Recommendation (AAAI
    2024) for `cut`; Tang et al., Progressive Layered Extraction (RecSys 2020) for `hidden`, there
    over one set. Its cut on the shared gate is ours.
    """

    def __init__(
        self,
        levels: int,
        reads: Sequence[int],
        own: int,
        shared: int,
        units: Sequence[int],
        *,
        others: Others = "cut",
        alone: Collection[int] = (),
        gate_input: GateInput = "sum",
        strict: bool = True,
        shared_output: bool = False,
        gate_units: Sequence[int] = (),
        gate_bias: bool = False,
        seed: int = 0,
        name: str = "extraction",
    ) -> None:
        super().__init__(name=name)
        if not shared and (gate_input != "task" or shared_output):
            raise ValueError("Without shared experts the gates read z_t, and none is shared.")
        tasks = len(reads)
        own_sets = max(reads) + 1
        self.sets = own_sets + (shared > 0)
        self.gate_input = gate_input
        of_shared = [own_sets] * (shared > 0)
        self._reads = np.array([*reads, *of_shared])  # no list: Keras would make it a part
        owners = [t for t in range(tasks) for _ in range(own)] + [tasks] * shared
        near = [[owner in (t, tasks) for owner in owners] for t in range(tasks)]
        every = [True] * len(owners)
        sees = [row if others == "hidden" or t in alone else every for t, row in enumerate(near)]
        cuts = [[others == "cut" and not one for one in row] for row in near]
        both = [*sees, every]
        both_cuts = [*cuts, [strict and owner < tasks for owner in owners]]
        self.experts: list[ExpertBank] = []
        self.gates: list[GateBank] = []
        for level in range(1, levels + 1):
            of_level = self._reads[owners] if level == 1 else owners
            own_name = f"level_{level}"
            self.experts.append(ExpertBank(list(of_level), units, seed=seed, name=own_name))
            apart = not shared or (level == levels and not shared_output)
            self.gates.append(
                GateBank(
                    sees if apart else both,
                    cuts if apart else both_cuts,
                    gate_units,
                    bias=gate_bias,
                    seed=seed,
                    name=f"{own_name}_gates",
                )
            )

    def call(self, sets: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Extracts the tasks' vectors.

        Args:
            sets: x, (K, B, d).
            training: Whether compiled kernels may be used; an exported graph holds none.

        Returns:
            z^L: (B, T, h), with `shared_output` (B, T + 1, h).
        """
        own, read = sets, sets  # own: z_t and z_S where there is one, (T + 1, B, d)
        if list(self._reads) != list(range(self.sets)):
            each = tf.unstack(sets)
            own = tf.stack([each[k] for k in self._reads])
        mixed: Any = None
        reads = self._reads  # what each gate reads of `read`
        for experts, gates in zip(self.experts, self.gates, strict=True):
            if not gates.built:  # a kernel is there once its layer was called
                gates((self._gate_read(own, gates.mix.gates), experts(read)))
            if _rides_along(gates, experts):
                columns = self._gate_columns(gates, reads, read.shape[0])  # (K, d, G c)
                outputs, scores = experts.outputs_and_beside(read, training, columns)
                by_gate = tf.reshape(
                    tf.reduce_sum(scores, axis=0), [-1, gates.mix.gates, gates.kernel.shape[-1]]
                )  # (B, G, c)
                weights = gates.weights_from(tf.transpose(by_gate, [1, 0, 2]))
                mixed = gates.mix.mixed(weights, outputs)
            else:
                outputs = experts(read, training=training)  # (B, E, h)
                read_apart = self._gate_read(own, gates.mix.gates)
                mixed = gates((read_apart, outputs), training=training)
            own = read = tf.transpose(mixed, [1, 0, 2])  # (T + 1, B, h)
            reads = np.arange(len(self._reads))
        return mixed

    def _gate_columns(self, gates: GateBank, reads: np.ndarray, sets: int) -> tf.Tensor:
        """The gates' kernels below the sets that each of them reads, zeros elsewhere.

        V_g (x^k + x^S) is V_g x^k + V_g x^S: the sets are multiplied by it together with their
        experts' kernels, and no sum of sets is made.

        Args:
            gates: Gates without hidden units.
            reads: The set that each gate reads, counted from 0.
            sets: Number of sets K.

        Returns:
            (K, d, G c).
        """
        count = gates.mix.gates
        of_gate = np.zeros((sets, count), np.float32)
        of_gate[reads[:count], np.arange(count)] = 1
        if self.gate_input == "sum":
            of_gate[sets - 1, : len(self._reads) - 1] = 1
        kernel = tf.convert_to_tensor(gates.kernel)  # (G, d, c)
        width, scores = kernel.shape[1:]
        wide = tf.reshape(tf.transpose(kernel, [1, 0, 2]), [width, count * scores])
        taken = tf.constant(np.repeat(of_gate, scores, axis=1), kernel.dtype)  # (K, G c)
        return wide * taken[:, tf.newaxis]

    def _gate_read(self, own: tf.Tensor, gates: int) -> tf.Tensor:
        """v of the tasks' gates, and z_S of the shared one where there is one, (G, B, d)."""
        if self.gate_input == "task":
            return own if own.shape[0] == gates else own[:gates]
        tasks = len(self._reads) - 1
        with_shared = _with_last(own)  # (T, B, d)
        return with_shared if gates == tasks else tf.concat([with_shared, own[tasks:]], axis=0)


def _rides_along(gates: GateBank, experts: ExpertBank) -> bool:
    """Whether the gates' products are few enough to be made in the experts'.

    A set then has columns of all gates, zeros but for those that read it: that must cost less than
    reading the sets once more.
    """
    columns = gates.mix.gates * gates.kernel.shape[-1]
    several = len(experts.kernel.shape) == 3
    # a gate's own narrow product is not rounded in a step of bfloat16 products
    return several and not gates.units and 8 * columns <= experts.units[0] and not in_bfloat16()


@tf.custom_gradient
def _with_last(own: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """z_0 + z_S, ..., z_(T-1) + z_S of (T + 1, B, d); its gradient is written once."""

    def grad(upstream: tf.Tensor) -> tf.Tensor:
        return tf.concat([upstream, tf.reduce_sum(upstream, axis=0, keepdims=True)], axis=0)

    return own[:-1] + own[-1:], grad
