"""The gate adapter of the LFM4Ads public experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf
import tf_keras

from lfm4ads_tf.seeding import glorot
from lfm4ads_tf.transfer.adapter import Adapted, Adapter


class GateAdapter(Adapter):
    """x_0 = E * sigmoid(sum_r W_r r + b), element by element.

    Args:
        sources: Representations.
        seed: Seed of W.

    Source: LFM4Ads (arXiv 2508.14948), `gate` of the public experiment.
    """

    def __init__(self, sources: Sequence[str], *, seed: int = 0) -> None:
        super().__init__(sources, name="gate")
        self._seed = seed
        self._dense: tf_keras.layers.Dense | None = None

    def call(
        self, representations: Mapping[str, tf.Tensor], width: int, training: bool = False
    ) -> Adapted:
        """See `Adapter.call`; the presence flag is one more input of W."""
        if self._dense is None:
            self._dense = tf_keras.layers.Dense(
                width,
                activation="sigmoid",
                kernel_initializer=glorot(self._seed, "gate/" + "+".join(self.sources)),
                name="gate",
            )
        joined = tf.concat([representations[s] for s in self.sources], axis=-1)  # (B, sum d)
        return Adapted(gate=self._dense(joined))
