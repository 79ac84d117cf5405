"""Inner products of all pairs of fields."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, Self

import numpy as np
import tensorflow as tf
import tf_keras
from pydantic import Field

from lfm4ads_tf.interactions.columns import (
    Carried,
    Columns,
    Label,
    carry_bias,
    carry_kernel,
    same_columns,
)
from lfm4ads_tf.interactions.config import LayerConfig
from lfm4ads_tf.interactions.inputs import BlockInputs
from lfm4ads_tf.interactions.layer import InteractionLayer
from lfm4ads_tf.precision import product
from lfm4ads_tf.seeding import glorot


class IpnnConfig(LayerConfig):
    """Inner products of all pairs of fields and a dense layer, its vector joined to the stream.

    Attributes:
        dim: Width that fields of other widths are projected to.
        units: Width of the dense layer.
    """

    type: Literal["ipnn"] = "ipnn"
    dim: int = Field(default=16, ge=1)
    units: int = Field(default=64, ge=1)


class IPNN(InteractionLayer):
    """z = W p + b with p_ij = <v_i, v_j> for all pairs of fields i < j, F (F - 1) / 2 of them.

    Fields of another width than `dim` are projected to it first. Where a block reads several sets
    of embeddings together, a field is its sets side by side. W has a row for each pair; rows stay
    with their pair whatever order the fields come in later.

    Args:
        units: Width of z.
        dim: Width of the fields.
        seed: Seed of the initial weights.

    Raises:
        ValueError: There are fewer than two fields.

    Source: Qu et al., Product-based Neural Networks for User Response Prediction (ICDM 2016), the
    inner products (IPNN), without the factorisation of their kernel.
    """

    Config = IpnnConfig
    joins = True
    reads_stream = False
    names_weights = False  # its own call does

    def __init__(
        self, units: int, *, dim: int = 16, seed: int = 0, name: str | None = None
    ) -> None:
        super().__init__(name=name)
        self.units = units
        self.dim = dim
        self.seed = seed
        self._names: tuple[str, ...] = ()  # of the fields, once it was called

    @classmethod
    def create(cls, config: IpnnConfig, *, seed: int, name: str) -> Self:
        """See `InteractionLayer`."""
        return cls(config.units, dim=config.dim, seed=seed, name=name)

    @classmethod
    def activation_names(cls, config: IpnnConfig, name: str) -> list[str]:
        """z, named as the layer."""
        return [name]

    @classmethod
    def field_dim(cls, config: IpnnConfig) -> int:
        """See `InteractionLayer`."""
        return config.dim

    def interact(
        self, stream: tf.Tensor, inputs: BlockInputs, *, training: bool = False
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Multiplies the fields; the stream is not read."""
        names = tuple(name for group in inputs.fields for name in group.names)
        self._names = self._names or names
        # a ranking has the fields of its one user before those of its items
        order = None if names == self._names else [names.index(name) for name in self._names]
        output = self([group.values for group in inputs.fields], order=order)  # (B, units)
        return {self.name: output}, output

    def build(self, input_shape: Sequence[tf.TensorShape]) -> None:
        """Makes one projection per width that is not `dim`, and W and b for the pairs.

        Raises:
            ValueError: There are fewer than two fields.
        """
        fields = sum(int(shape[1]) for shape in input_shape)
        if fields < 2:
            raise ValueError(f"Inner products need two fields or more, not {fields}.")
        self.projections = {
            str(shape[-1]): tf_keras.layers.Dense(
                self.dim,
                use_bias=False,
                kernel_initializer=glorot(self.seed, f"{self.name}/{shape[-1]}"),
                name=f"project_{shape[-1]}",
                dtype=self.dtype_policy,
            )
            for shape in input_shape
            if shape[-1] != self.dim
        }
        pairs = fields * (fields - 1) // 2
        self.kernel = self.add_weight(
            name="kernel",
            shape=(pairs, self.units),
            initializer=glorot(self.seed, f"{self.name}/kernel"),
        )
        self.bias = self.add_weight(name="bias", shape=(self.units,), initializer="zeros")
        super().build(input_shape)

    def call(self, fields: Sequence[tf.Tensor], order: Sequence[int] | None = None) -> tf.Tensor:
        """Multiplies all pairs of fields.

        Args:
            fields: Field embeddings, one tensor (B, F_w, w) per width w.
            order: Where each field of the first call is now, F of them; None for the same places.

        Returns:
            z: (B, units).
        """
        projected = [self.projections.get(str(group.shape[-1])) for group in fields]
        vectors = tf.concat(
            [v if p is None else p(v) for p, v in zip(projected, fields, strict=True)], axis=1
        )  # (B, F, dim)
        if order is not None:
            vectors = tf.gather(vectors, tf.constant(order, tf.int32), axis=1)
        count = vectors.shape[1]
        products = tf.matmul(vectors, vectors, transpose_b=True)  # (B, F, F)
        flat = tf.reshape(products, [-1, count * count])  # (B, F^2)
        # rows of zeros for p_ji and p_ii, half of a cheap product, cost less than to pick the p_ij
        # out of every row of the batch and to spread their gradients again
        first, second = np.triu_indices(count, 1)
        places = tf.constant((first * count + second)[:, np.newaxis], tf.int32)  # (P, 1)
        kernel = tf.convert_to_tensor(self.kernel)  # (P, units)
        square = tf.scatter_nd(places, kernel, [count * count, self.units])  # (F^2, units)
        return tf.nn.bias_add(product(flat, square), self.bias)

    def carry(
        self, target: Self, columns: Columns, names: Collection[str], carried: Carried
    ) -> Columns:
        """Copies the projections of the widths that both have, and W by the pairs that both have.

        A pair that the upstream does not have, such as one with an adapted representation, starts
        at zero.
        """
        output = same_columns(self.name, self.units)
        if names:
            for width, projection in self.projections.items():
                if width in target.projections:
                    target.projections[width].kernel.assign(projection.kernel)
            carry_kernel(self.kernel, target.kernel, (self._pairs(), target._pairs()), output)
            carry_bias(self.bias, target.bias, output)
            carried.add(self.name, target)
        return output

    def _pairs(self) -> list[Label]:
        """The pair of each row of W, whichever of its fields comes first."""
        first, second = np.triu_indices(len(self._names), 1)
        ends = [(self._names[i], self._names[j]) for i, j in zip(first, second, strict=True)]
        return [(" x ".join(sorted(pair)), 0) for pair in ends]
