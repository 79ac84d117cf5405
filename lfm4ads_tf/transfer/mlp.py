"""The non-linear adapter of LFM4Ads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf
import tf_keras

from lfm4ads_tf.seeding import glorot
from lfm4ads_tf.transfer.adapter import Adapted, Adapter


class MlpAdapter(Adapter):
    """x_0 = [E; a_1; ...; a_n] with a = W_2 relu(W_1 [LN(r); present] + b_1) + b_2 per source.

    Args:
        sources: Representations.
        units: Hidden widths, and the width of a as the last.
        seed: Seed of the initial weights.

    Source: LFM4Ads (arXiv 2508.14948), feature level; the exact form is this project's.
    """

    def __init__(self, sources: Sequence[str], *, units: Sequence[int], seed: int = 0) -> None:
        super().__init__(sources, name="mlp")
        self.norms = [
            tf_keras.layers.LayerNormalization(epsilon=1e-6, name=f"norm_{k}")
            for k in range(len(self.sources))
        ]
        self.stacks = [
            [
                tf_keras.layers.Dense(
                    width,
                    activation="relu" if j < len(units) - 1 else None,
                    kernel_initializer=glorot(seed, f"mlp/{source}/{j}"),
                    name=f"mlp_{k}_{j}",
                )
                for j, width in enumerate(units)
            ]
            for k, source in enumerate(self.sources)
        ]

    def call(self, representations: Mapping[str, tf.Tensor], width: int) -> Adapted:
        """See `Adapter.call`; a missing representation enters as zeros with present = 0."""
        extra = []
        for source, norm, stack in zip(self.sources, self.norms, self.stacks, strict=True):
            stored = representations[source]
            present = stored[:, -1:]  # (B, 1)
            value = tf.concat([norm(stored[:, :-1]) * present, present], axis=-1)  # (B, d + 1)
            for dense in stack:
                value = dense(value)
            extra.append(value)
        return Adapted(extra=extra)
