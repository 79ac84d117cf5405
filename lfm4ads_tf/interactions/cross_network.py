"""DCNv2 cross layers on top of each other."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, Self

import tensorflow as tf
from pydantic import Field

from lfm4ads_tf.interactions.columns import (
    Carried,
    Columns,
    carry_bias,
    carry_kernel,
    same_columns,
)
from lfm4ads_tf.interactions.config import LayerConfig
from lfm4ads_tf.interactions.cross import Cross
from lfm4ads_tf.interactions.inputs import BlockInputs
from lfm4ads_tf.interactions.layer import InteractionLayer


class CrossConfig(LayerConfig):
    """DCNv2 cross layers.

    Attributes:
        depth: Number of layers.
        rank: Rank of the weight matrix; full when absent.
    """

    type: Literal["cross"] = "cross"
    depth: int = Field(default=3, ge=1)
    rank: int | None = Field(default=None, ge=1)


class CrossNetwork(InteractionLayer):
    """x_{l+1} = x_0' * (W_l x_l + b_l) + x_l for l = 1 ... depth, from x_1 = x_0'.

    x_0' is the stream that the block gives it.

    Args:
        depth: Number of cross layers.
        rank: Rank of each W; None for full matrices.
        seed: Seed of the initial weights.

    Source: Wang et al., DCN V2 (arXiv 2008.13535), section 3.2.
    """

    Config = CrossConfig
    explicit = True
    names_weights = False  # they keep the names that checkpoints of older runs know

    def __init__(
        self, depth: int, rank: int | None = None, *, seed: int = 0, name: str = "cross"
    ) -> None:
        super().__init__(name=name)
        self._depth = depth
        for k, layer_name in enumerate(_names(name, depth)):
            # Attributes `0`, `1`, ... as of a list: weights are saved by the path to them.
            setattr(self, str(k), Cross(rank, seed=seed, name=layer_name))

    @classmethod
    def create(cls, config: CrossConfig, *, seed: int, name: str) -> Self:
        """See `InteractionLayer`."""
        return cls(config.depth, config.rank, seed=seed, name=name)

    @classmethod
    def activation_names(cls, config: CrossConfig, name: str) -> list[str]:
        """x_2 ... x_{depth + 1}, named `<name>_1` ... `<name>_<depth>`."""
        return _names(name, config.depth)

    @property
    def layers(self) -> list[Cross]:
        """The cross layers in order."""
        return [getattr(self, str(k)) for k in range(self._depth)]

    def interact(
        self, stream: tf.Tensor, inputs: BlockInputs, *, training: bool = False
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Crosses the stream (B, d) with itself; fields are not read."""
        crossed, output = self.call(stream, training=training)
        named = zip(self.layers, crossed, strict=True)
        return {layer.name: activation for layer, activation in named}, output

    def call(self, stream: tf.Tensor, training: bool = False) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Runs the layers.

        Args:
            stream: x_0', (B, d).
            training: Whether compiled kernels may be used; an exported graph holds none.

        Returns:
            x_2 ... x_{depth + 1}, each (B, d), and the last of them for what follows.
        """
        crossed = [stream]
        for layer in self.layers:
            crossed.append(layer((stream, crossed[-1]), training=training))  # (B, d)
        return crossed[1:], crossed[-1]

    def carry(
        self, target: Self, columns: Columns, names: Collection[str], carried: Carried
    ) -> Columns:
        """Copies each W and b by what the columns of the stream mean."""
        for one, other in zip(self.layers, target.layers, strict=True):
            if one.name not in names:
                continue
            rows = columns
            if one.rank is not None:
                rows = same_columns("rank", one.rank)
                carry_kernel(one.down.kernel, other.down.kernel, columns, rows)
            carry_kernel(one.dense.kernel, other.dense.kernel, rows, columns)
            carry_bias(one.dense.bias, other.dense.bias, columns)
            carried.add(one.name, other)
        return columns


def _names(name: str, depth: int) -> list[str]:
    return [f"{name}_{k}" for k in range(1, depth + 1)]
