"""The gate adapter of the LFM4Ads public experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any, ClassVar, Self

import tensorflow as tf
import tf_keras

from lfm4ads_tf.seeding import glorot
from lfm4ads_tf.transfer.adapters.adapter import Adapted, Adapter
from lfm4ads_tf.transfer.config import AdapterConfig


class GateAdapter(Adapter):
    """x_0 = E * sigmoid(sum_r W_r r + b), element by element.

    Args:
        sources: Representations.
        seed: Seed of W.

    Source: LFM4Ads (arXiv 2508.14948), `gate` of the public experiment.
    """

    gates_stream: ClassVar[bool] = True

    def __init__(self, sources: Sequence[str], *, seed: int = 0) -> None:
        super().__init__(sources, name="gate")
        self._seed = seed
        self._dense: tf_keras.layers.Dense | None = None

    @classmethod
    def create(cls, sources: Sequence[str], config: AdapterConfig, options: Any, seed: int) -> Self:
        """See `Adapter.create`."""
        return cls(sources, seed=seed)

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
                dtype=self.dtype_policy,
            )
        stored = [representations[s] for s in self.sources]
        if len({values.shape[0] for values in stored}) > 1 and self._dense.built:
            return Adapted(gate=_of_unequal_rows(self._dense, stored))
        return Adapted(gate=self._dense(tf.concat(stored, axis=-1)))  # of (B, sum d)


def _of_unequal_rows(dense: tf_keras.layers.Dense, stored: Sequence[tf.Tensor]) -> tf.Tensor:
    """The gate (B, width) of representations of 1 row and of B rows, each multiplied once."""
    kernels = tf.split(dense.kernel, [int(v.shape[-1]) for v in stored])  # (d, width) each
    # what has one row is added up before it meets what has B
    ordered = sorted(zip(stored, kernels, strict=True), key=lambda pair: pair[0].shape[0] != 1)
    products = [tf.matmul(values, kernel) for values, kernel in ordered]  # (1 or B, width)
    return tf.sigmoid(reduce(add, [dense.bias, *products]))
