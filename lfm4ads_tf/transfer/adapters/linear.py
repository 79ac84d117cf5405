"""The linear adapter: Meta's SUM baseline when its source is UR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import tensorflow as tf
import tf_keras

from lfm4ads_tf.seeding import glorot
from lfm4ads_tf.transfer.adapters.adapter import Adapted, Adapter
from lfm4ads_tf.transfer.config import AdapterConfig


class LinearAdapter(Adapter):
    """x_0 = [E; W r + b] for each source r.

    Args:
        sources: Representations.
        dim: Rows of W.
        seed: Seed of W.

    Source: Scaling User Modeling (arXiv 2311.09544); `SUM` and `concat` of the LFM4Ads public
    experiment.
    """

    widens: ClassVar[bool] = True

    def __init__(self, sources: Sequence[str], *, dim: int, seed: int = 0) -> None:
        super().__init__(sources, name="linear")
        self.projections = [
            tf_keras.layers.Dense(
                dim, kernel_initializer=glorot(seed, f"linear/{source}"), name=f"linear_{k}"
            )
            for k, source in enumerate(self.sources)
        ]

    @classmethod
    def create(cls, sources: Sequence[str], config: AdapterConfig, options: Any, seed: int) -> Self:
        """See `Adapter.create`; reads `linear_dim`."""
        return cls(sources, dim=config.linear_dim, seed=seed)

    def call(
        self, representations: Mapping[str, tf.Tensor], width: int, training: bool = False
    ) -> Adapted:
        """See `Adapter.call`; the presence flag is one more input of W."""
        pairs = zip(self.sources, self.projections, strict=True)
        return Adapted(extra=[project(representations[s]) for s, project in pairs])
