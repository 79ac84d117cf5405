"""The non-linear adapter of LFM4Ads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import tensorflow as tf

from lfm4ads_tf.transfer.adapters.adapter import Adapted, Adapter
from lfm4ads_tf.transfer.adapters.mlp_stack import MlpStack
from lfm4ads_tf.transfer.config import AdapterConfig


class MlpAdapter(Adapter):
    """x_0 = [E; a_1; ...; a_n] with a = W_2 relu(W_1 [LN(r); present] + b_1) + b_2 per source.

    Args:
        sources: Representations.
        units: Hidden widths, and the width of a as the last.
        dropout: Rate applied to each hidden layer in training.
        zero_init: Whether a starts at zero.
        seed: Seed of the initial weights.

    Source: LFM4Ads (arXiv 2508.14948), feature level; the exact form is this project's.
    """

    widens: ClassVar[bool] = True

    def __init__(
        self,
        sources: Sequence[str],
        *,
        units: Sequence[int],
        dropout: float = 0.0,
        zero_init: bool = False,
        seed: int = 0,
        name: str = "mlp",
    ) -> None:
        super().__init__(sources, name=name)
        self.stacks = [
            MlpStack(
                units,
                label=f"{name}/{source}",
                dropout=dropout,
                zero_init=zero_init,
                seed=seed,
                name=f"{name}_{k}",
            )
            for k, source in enumerate(self.sources)
        ]

    @classmethod
    def create(cls, sources: Sequence[str], config: AdapterConfig, options: Any, seed: int) -> Self:
        """See `Adapter.create`; reads `adapter_units`, `adapter_dropout`, `adapter_zero_init`."""
        return cls(
            sources,
            units=config.adapter_units,
            dropout=config.adapter_dropout,
            zero_init=config.adapter_zero_init,
            seed=seed,
        )

    def adapted(self, representations: Mapping[str, tf.Tensor], training: bool) -> list[tf.Tensor]:
        """a per source, each (B, units[-1])."""
        pairs = zip(self.sources, self.stacks, strict=True)
        return [stack(representations[s], training=training) for s, stack in pairs]

    def call(
        self, representations: Mapping[str, tf.Tensor], width: int, training: bool = False
    ) -> Adapted:
        """See `Adapter.call`; a missing representation enters as zeros with present = 0."""
        return Adapted(extra=self.adapted(representations, training))
