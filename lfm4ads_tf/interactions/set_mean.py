"""What sets of embeddings, each interacted by itself, have to say together."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from lfm4ads_tf.interactions.dnn import DNN
from lfm4ads_tf.interactions.expert_bank import ExpertBank
from lfm4ads_tf.rebuildable import Rebuildable


class SetMean(Rebuildable, tf_keras.layers.Layer):
    """m = 1/K sum_k relu(W_k I_k + b_k), and shared layers h_{n+1} = V_n relu(h_n) + c_n over m.

    The sets meet in the mean alone, behind the non-linearity: without it, the mean of bilinear
    interactions is one bilinear interaction of a wider embedding. h_1 reads m itself.

    Args:
        sets: K.
        dim: Width of m.
        shared_units: Width of each shared layer; empty means m itself.
        seed: Seed of the initial weights. A set's depend on seed, name and number of the set.

    Source: Guo et al., On the Embedding Collapse When Scaling Up Recommendation Models (ICML 2024);
    Pan et al., Ads Recommendation in a Collapsed and Entangled World (KDD 2024).
    """

    def __init__(
        self,
        sets: int,
        dim: int,
        shared_units: Sequence[int] = (),
        *,
        seed: int = 0,
        name: str = "set_mean",
    ) -> None:
        super().__init__(name=name)
        self.non_linear = ExpertBank(range(sets), [dim], seed=seed, name="sets")
        self.shared = DNN(shared_units, seed=seed, name="shared") if shared_units else None

    def call(
        self, interacted: Sequence[tf.Tensor], training: bool = False
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Joins the sets.

        Args:
            interacted: I_k of each set, K of (B, d).
            training: Whether compiled kernels may be used; an exported graph holds none.

        Returns:
            Activations by name: `mean` m (B, dim) and `shared_1` ... h_n, each (B, units_n), before
            the non-linearity; and the output, relu of the last of them, or m.
        """
        # (K, B, d) -> (B, K, dim): the sets are one batched product
        apart = self.non_linear(tf.stack(list(interacted)), training=training)
        mean = tf.reduce_mean(apart, axis=1)  # (B, dim)
        activations = {"mean": mean}
        if self.shared is None:
            return activations, mean
        hidden, output = self.shared(mean, training=training)
        return activations | dict(zip(shared_names(len(hidden)), hidden, strict=True)), output


def shared_names(layers: int) -> list[str]:
    """Names of the shared layers' activations."""
    return [f"shared_{n}" for n in range(1, layers + 1)]
