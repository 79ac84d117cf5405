"""A stack of dense layers whose pre-activations are all returned."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, Literal, Self

import tensorflow as tf
import tf_keras
from pydantic import Field

from lfm4ads_tf.interactions.columns import Carried, Columns, carry_dense, same_columns
from lfm4ads_tf.interactions.config import LayerConfig
from lfm4ads_tf.interactions.dropout import Dropout
from lfm4ads_tf.interactions.inputs import BlockInputs
from lfm4ads_tf.interactions.layer import InteractionLayer
from lfm4ads_tf.kernels.bias import add_bias
from lfm4ads_tf.precision import product
from lfm4ads_tf.seeding import glorot


class DnnConfig(LayerConfig):
    """Dense layers; activations are named before the non-linearity.

    Attributes:
        units: Width of each layer.
        activate_input: Whether the first layer reads the activated stream, as the LFM4Ads public
            experiment does, or the stream as it is.
        dropout: Rate applied to the activated output of each layer in training.
    """

    type: Literal["dnn"] = "dnn"
    units: list[Annotated[int, Field(ge=1)]] = Field(default=[256, 128], min_length=1)
    activate_input: bool = False
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)


class DNN(InteractionLayer):
    """h_{k+1} = W_k a(h_k) + c_k, with a = relu; h_1 reads a(x) or x itself.

    Args:
        units: Width of each layer.
        activate_input: Whether the first layer reads relu(x) instead of x.
        dropout: Rate applied to each relu(h_k) in training.
        seed: Seed of the initial weights and of the dropout.

    Source: the public experiment of LFM4Ads (arXiv 2508.14948) keeps the pre-activations.
    """

    Config = DnnConfig
    reads_joined = True
    names_weights = False  # they keep the names that checkpoints of older runs know

    def __init__(
        self,
        units: Sequence[int],
        *,
        activate_input: bool = False,
        dropout: float = 0.0,
        seed: int = 0,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.activate_input = activate_input
        self.layers = [
            tf_keras.layers.Dense(
                width, kernel_initializer=glorot(seed, f"{self.name}_{k}"), name=f"{self.name}_{k}"
            )
            for k, width in enumerate(units, start=1)
        ]
        self.dropouts = [
            Dropout(dropout, seed=seed, name=f"{self.name}_{k}_dropout")
            for k in range(1, len(units) + 1)
        ]

    @classmethod
    def create(cls, config: DnnConfig, *, seed: int, name: str) -> Self:
        """See `InteractionLayer`."""
        return cls(
            config.units,
            activate_input=config.activate_input,
            dropout=config.dropout,
            seed=seed,
            name=name,
        )

    @classmethod
    def activation_names(cls, config: DnnConfig, name: str) -> list[str]:
        """h_1 ... h_n, named `<name>_1` ... `<name>_<n>`."""
        return [f"{name}_{k}" for k in range(1, len(config.units) + 1)]

    def interact(
        self, stream: tf.Tensor, inputs: BlockInputs, *, training: bool = False
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Runs the stack on the stream (B, d); fields are not read."""
        hidden, output = self(stream, training=training)
        named = zip(self.layers, hidden, strict=True)
        return {layer.name: activation for layer, activation in named}, output

    def call(self, stream: tf.Tensor, training: bool = False) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Runs the stack.

        Args:
            stream: x, (B, d).

        Returns:
            The pre-activations h_1 ... h_n, each (B, units_k), and relu(h_n) for what follows.
        """
        hidden: list[tf.Tensor] = []
        value = tf.nn.relu(stream) if self.activate_input else stream
        for dense, dropout in zip(self.layers, self.dropouts, strict=True):
            if training and dense.built:
                hidden.append(add_bias(product(value, dense.kernel), dense.bias))
            else:
                hidden.append(dense(value))  # (B, units_k)
            value = dropout(tf.nn.relu(hidden[-1]), training=training)
        return hidden, value

    def carry(
        self, target: Self, columns: Columns, names: Collection[str], carried: Carried
    ) -> Columns:
        """Copies each W and c by what the columns of its input mean."""
        for one, other in zip(self.layers, target.layers, strict=True):
            output = same_columns(one.name, one.units)
            if one.name in names:
                carry_dense(one, other, columns, output)
                carried.add(one.name, other)
            columns = output
        return columns
