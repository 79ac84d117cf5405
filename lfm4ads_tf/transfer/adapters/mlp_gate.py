"""A gate that starts open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any, ClassVar, Self

import tensorflow as tf
import tf_keras

from lfm4ads_tf.rebuildable import made_like
from lfm4ads_tf.transfer.adapters.adapter import Adapted, Adapter
from lfm4ads_tf.transfer.adapters.mlp_stack import MlpStack
from lfm4ads_tf.transfer.config import AdapterConfig


class MlpGateAdapter(Adapter):
    """x_0 = E * 2 sigmoid(sum_r W relu(V [LN(r) p; p] + c) + b), element by element.

    W and b start at zero: the model starts as it would without transfer.

    Args:
        sources: Representations.
        units: Hidden widths.
        dropout: Rate applied to each hidden layer in training.
        seed: Seed of the initial weights.

    Attributes:
        kind: What the names of its layers and its initial weights depend on.

    Source: this project's, after the gate of the LFM4Ads public experiment (arXiv 2508.14948).
    """

    kind: ClassVar[str] = "gate_mlp"
    gates_stream: ClassVar[bool] = True

    def __init__(
        self,
        sources: Sequence[str],
        *,
        units: Sequence[int],
        dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(sources, name=self.kind)
        self._units = list(units)
        self._dropout = dropout
        self._seed = seed
        self.stacks: list[tf_keras.layers.Layer] = []

    @classmethod
    def create(cls, sources: Sequence[str], config: AdapterConfig, options: Any, seed: int) -> Self:
        """See `Adapter.create`; reads the hidden widths of `adapter_units`, `adapter_dropout`."""
        return cls(
            sources, units=config.adapter_units[:-1], dropout=config.adapter_dropout, seed=seed
        )

    def call(
        self, representations: Mapping[str, tf.Tensor], width: int, training: bool = False
    ) -> Adapted:
        """See `Adapter.call`."""
        if not self.stacks:
            with made_like(self):
                self.stacks = [
                    MlpStack(
                        [*self._units, width],
                        label=f"{self.kind}/{source}",
                        dropout=self._dropout,
                        zero_init=True,
                        seed=self._seed,
                        name=f"{self.kind}_{k}",
                    )
                    for k, source in enumerate(self.sources)
                ]
        pairs = zip(self.sources, self.stacks, strict=True)
        scores = [stack(representations[s], training=training) for s, stack in pairs]
        # one row of a user's and many of items' may meet here, which add_n refuses
        return Adapted(gate=2.0 * tf.sigmoid(reduce(add, scores)))
