"""Factorisation machine layer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal, Self

import tensorflow as tf
import tf_keras
from pydantic import Field

from lfm4ads_tf.interactions.columns import Carried, Columns, same_columns
from lfm4ads_tf.interactions.config import LayerConfig
from lfm4ads_tf.interactions.inputs import BlockInputs
from lfm4ads_tf.interactions.layer import InteractionLayer
from lfm4ads_tf.interactions.repeated import repeated
from lfm4ads_tf.seeding import glorot


class FmConfig(LayerConfig):
    """Factorisation machine over the field embeddings, its vector joined to the stream.

    Attributes:
        dim: Width that fields of other widths are projected to.
    """

    type: Literal["fm"] = "fm"
    dim: int = Field(default=16, ge=1)


class FM(InteractionLayer):
    """Bi-interaction pooling: z = 1/2 ((sum_f v_f)^2 - sum_f v_f^2), element by element.

    Fields of another width than `dim` are projected to it first.

    Args:
        dim: Width of z.
        seed: Seed of the projections.

    Source: Rendle, Factorization Machines (2010); He and Chua, Neural FM (2017), section 3.2.
    """

    Config = FmConfig
    joins = True
    reads_stream = False
    shares_rows = True
    names_weights = False  # they keep the names that checkpoints of older runs know

    def __init__(self, dim: int, *, seed: int = 0, name: str | None = None) -> None:
        super().__init__(name=name)
        self.dim = dim
        self.seed = seed

    @classmethod
    def create(cls, config: FmConfig, *, seed: int, name: str) -> Self:
        """See `InteractionLayer`."""
        return cls(config.dim, seed=seed, name=name)

    @classmethod
    def activation_names(cls, config: FmConfig, name: str) -> list[str]:
        """z, named as the layer."""
        return [name]

    @classmethod
    def field_dim(cls, config: FmConfig) -> int:
        """See `InteractionLayer`."""
        return config.dim

    def interact(
        self, stream: tf.Tensor, inputs: BlockInputs, *, training: bool = False
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Pools the fields; the stream is not read."""
        pooled = self([group.values for group in inputs.fields])  # (B, dim)
        return {self.name: pooled}, pooled

    def build(self, input_shape: Sequence[tf.TensorShape]) -> None:
        """Makes one projection per width that is not `dim`."""
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
        super().build(input_shape)

    def call(self, fields: Sequence[tf.Tensor]) -> tf.Tensor:
        """Pools all pairs of fields.

        Args:
            fields: Field embeddings, one tensor (B, F_w, w) per width w. A group of one row, of
                static size 1, stands for B equal ones; it is projected once and then joined to the
                group of its width behind it, so that sums have the same order.

        Returns:
            z: (B, dim).
        """
        total = tf.zeros([], fields[0].dtype)
        squares = tf.zeros([], fields[0].dtype)
        waiting: list[tf.Tensor] = []
        for group, following in zip(fields, [*fields[1:], None], strict=True):
            projection = self.projections.get(str(group.shape[-1]))
            waiting.append(group if projection is None else projection(group))  # (B, F_w, dim)
            if group.shape[0] == 1 and following is not None:
                if following.shape[-1] == group.shape[-1]:
                    continue
            vectors = _joined(waiting)  # (B, F_w, dim)
            waiting = []
            total += tf.reduce_sum(vectors, axis=1)  # (B, dim)
            squares += tf.reduce_sum(tf.square(vectors), axis=1)  # (B, dim)
        return 0.5 * (tf.square(total) - squares)

    def carry(
        self, target: Self, columns: Columns, names: Collection[str], carried: Carried
    ) -> Columns:
        """Copies the projections of the widths that both have."""
        projections: dict[str, Any] = self.projections if names else {}
        for width, projection in projections.items():
            if width in target.projections:
                target.projections[width].kernel.assign(projection.kernel)
                carried.add(self.name, target.projections[width])
        return same_columns(self.name, self.dim)


def _joined(groups: Sequence[tf.Tensor]) -> tf.Tensor:
    """Groups of 1 or B rows side by side, (B, F, w)."""
    if len(groups) == 1:
        return groups[0]
    rows = tf.shape(groups[-1])[0]
    return tf.concat([repeated(group, rows) for group in groups], axis=1)
