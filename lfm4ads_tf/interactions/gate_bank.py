"""Gates, each mixing some of the experts' outputs."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from lfm4ads_tf.interactions.expert_bank import constant, stacked_glorot
from lfm4ads_tf.interactions.expert_mix import ExpertMix, Pairs
from lfm4ads_tf.kernels.bias import biased_relu
from lfm4ads_tf.precision import product
from lfm4ads_tf.rebuildable import Rebuildable
from lfm4ads_tf.seeding import glorot


class GateBank(Rebuildable, tf_keras.layers.Layer):
    """m_g = sum_e a_{g,e} o_e with a_g = softmax(G_g(z_g)) over the experts that gate g sees.

        G_g(z) = V_g relu(W_{g,n} ... relu(W_{g,1} z + b_{g,1}) ... + b_{g,n}) [+ c_g]

    An expert that a gate does not see has the weight 0 and no column of V_g. One that is cut for a
    gate is mixed as any other, but no gradient of that gate's mixture reaches it; the gate's own
    weights get theirs. Each matrix starts as a Glorot-uniform one of its own, whose values depend
    on seed, name and number of the gate.

    Args:
        sees: Which experts each gate sees, at least one.
        cuts: Which experts each gate cuts; none where absent.
        units: Hidden units of a gate; empty means V_g z.
        bias: Whether there is c_g.
        seed: Seed of the initial weights.

    Raises:
        ValueError: A gate sees no expert, or `sees` and `cuts` differ in size.

    Source: Ma et al., Modeling Task Relationships in Multi-task Learning with Multi-gate
    Mixture-of-Experts (KDD 2018), section 4.2; Tang et al., Progressive Layered Extraction (RecSys
    2020), for gates that see some experts; Su et al., STEM (AAAI 2024), for cuts.
    """

    def __init__(
        self,
        sees: Pairs,
        cuts: Pairs | None = None,
        units: Sequence[int] = (),
        *,
        bias: bool = False,
        seed: int = 0,
        name: str = "gates",
    ) -> None:
        super().__init__(name=name)
        self.mix = ExpertMix(sees, cuts)
        self.units = tuple(units)
        self.affine = bias
        self.seed = seed

    def build(self, input_shape: tuple[tf.TensorShape, tf.TensorShape | None]) -> None:
        """Makes the weights for the width of what the gates read."""
        read = input_shape[0]
        gates, counts = self.mix.gates, self.mix.counts
        names = [f"{self.name}/gate_{g}" for g in range(gates)]
        below, apart = int(read[-1]), len(read) == 3
        self.hidden: list[tuple[tf.Variable, tf.Variable]] = []
        for k, above in enumerate(self.units, start=1):
            initial = stacked_glorot(self.seed, [f"{n}/{k}" for n in names], (below, above))
            bias: tuple[int, ...] = (gates, 1, above)
            if not apart and k == 1:  # one product for all gates
                initial = tf.concat(tf.unstack(initial), axis=-1)  # (d, G u_1)
                bias = (gates * above,)
            self.hidden.append(
                (
                    self.add_weight(
                        name=f"kernel_{k}", shape=initial.shape, initializer=constant(initial)
                    ),
                    self.add_weight(name=f"bias_{k}", shape=bias, initializer="zeros"),
                )
            )
            below = above
        if apart or self.units:
            # (G, u, most): a gate that sees fewer experts has columns that nothing reads
            initial = stacked_glorot(self.seed, names, (below, max(counts)))
            bias = (gates, 1, max(counts))
        else:
            initial = gate_columns(self.seed, names, below, counts)  # (d, sum of the counts)
            bias = (sum(counts),)
        self.kernel = self.add_weight(
            name="kernel", shape=initial.shape, initializer=constant(initial)
        )
        self.bias = None
        if self.affine:
            self.bias = self.add_weight(name="bias", shape=bias, initializer="zeros")
        super().build(input_shape)

    def weights_of(self, read: tf.Tensor, training: bool = False) -> tf.Tensor:
        """What each expert is mixed with, (B, G, E); 0 where a gate does not see it.

        Args:
            read: z, (B, d) for all gates or (G, B, d), one for each.
            training: Whether compiled kernels may be used; an exported graph holds none.
        """
        hidden = read
        for kernel, bias in self.hidden:
            joined = len(kernel.shape) == 2
            hidden = product(hidden, kernel)  # (B, G u_1), or (G, B, u_k)
            hidden = biased_relu(hidden, bias, training=training)
            if joined:
                hidden = tf.reshape(hidden, [-1, self.mix.gates, self.units[0]])  # (B, G, u_1)
                hidden = tf.transpose(hidden, [1, 0, 2])  # (G, B, u_1)
        return self.weights_from(product(hidden, self.kernel))

    def weights_from(self, scores: tf.Tensor) -> tf.Tensor:
        """What each expert is mixed with, from what the last kernel makes, (B, G, E).

        Args:
            scores: Without the bias, (B, sum of the counts) of gates that read the same, or
                (G, B, most).
        """
        if self.bias is not None:
            scores += self.bias
        if len(scores.shape) == 3:
            own = zip(tf.unstack(scores), self.mix.counts, strict=True)
            scores = tf.concat([each[:, :count] for each, count in own], axis=-1)
        return self.mix.weights(scores)

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Mixes the experts' outputs.

        Args:
            inputs: z, (B, d) for all gates or (G, B, d), one for each; and the experts' outputs
                (B, E, h).
            training: Whether compiled kernels may be used; an exported graph holds none.

        Returns:
            m: (B, G, h).
        """
        read, outputs = inputs
        return self.mix.mixed(self.weights_of(read, training), outputs)


def gate_columns(seed: int, names: Sequence[str], width: int, counts: Sequence[int]) -> tf.Tensor:
    """Initial matrices of gates without hidden units side by side, (width, sum of the counts)."""
    pairs = zip(names, counts, strict=True)
    return tf.concat([glorot(seed, name)((width, count)) for name, count in pairs], axis=-1)
