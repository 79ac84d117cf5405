"""The public experiment's ranker, upstream and downstream, with PyTorch's initial values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tf_keras

from lfm4ads_tf.experiments.torch_initial import embedding_values, linear_values
from lfm4ads_tf.interactions.cross import Cross
from lfm4ads_tf.interactions.dnn import DNN

DIM, CROSSES, HIDDEN = 10, 3, 2
SUM_WIDTH = 10  # of the projection of a representation that is concatenated


class PublicNetwork(tf_keras.Model):
    """DCNv2 over one table of all fields, one logit per tab.

        x_0 = E, [E; W r(u) + b] (`concat`) or E * sigmoid(W r(u) + b) (`gate`)
        x_{l+1} = (W_l x_l + b_l) * x_0 + x_l;  h_1 = W relu(x_3) + c;  h_2 = W relu(h_1) + c
        logit = (W relu(h_2) + c)[tab]

    Args:
        sizes: Number of values of each field.
        tabs: Number of tabs.
        representations: (U, d) what the adapter reads, fixed; None without one.
        adapter: `concat` or `gate`.
        seed: Seed of the initial weights.

    Source: the public experiment of LFM4Ads (arXiv 2508.14948).
    """

    def __init__(
        self,
        sizes: Sequence[int],
        tabs: int,
        *,
        representations: np.ndarray | None = None,
        adapter: str = "",
        seed: int,
    ) -> None:
        super().__init__(name="public_network")
        draw = np.random.default_rng(seed)
        self.width = DIM * len(sizes)
        self.table = tf.Variable(embedding_values(draw, sum(sizes), DIM), name="table")
        self._gated = adapter == "gate"
        self._known: tf.Tensor | None = None
        inner = self.width
        if representations is not None:
            self._known = tf.constant(representations)
            outputs = self.width if self._gated else SUM_WIDTH
            inner += 0 if self._gated else SUM_WIDTH
            self.adapter = tf_keras.layers.Dense(outputs, name="adapter")
            build_linear(self.adapter, draw, representations.shape[1])
        self.crosses = [Cross(name=f"cross_{k}") for k in range(1, CROSSES + 1)]
        self.deep = DNN([inner] * HIDDEN, activate_input=True, name="dnn")
        self.output_layer = tf_keras.layers.Dense(tabs, name="output")
        for cross in self.crosses:
            cross.build((tf.TensorShape([None, inner]), tf.TensorShape([None, inner])))
            build_linear(cross.dense, draw, inner)
        for dense in (*self.deep.layers, self.output_layer):
            build_linear(dense, draw, inner)

    def call(self, batch: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Logits of the rows' own tabs.

        Args:
            batch: `ids` (B, F), `user` (B,), `tab` (B,).

        Returns:
            (B,).
        """
        _, output = self._interact(batch, training)
        return tf.gather(self.output_layer(output), batch["tab"], batch_dims=1)  # (B,)

    def represent(self, batch: dict[str, tf.Tensor]) -> list[tf.Tensor]:
        """CR_0 ... CR_5 of each row, each (B, d)."""
        return self._interact(batch, False)[0]

    def warm_start(self, upstream: PublicNetwork, layers: int) -> None:
        """Copies the upstream's table and its first layers.

        Args:
            upstream: A network of the same sizes.
            layers: 0: the table alone; 1 to 3: cross layers; 4 and 5: hidden layers; 6: the output.
        """
        self.table.assign(upstream.table)
        pairs = zip(self.stack, upstream.stack, strict=True)
        for mine, theirs in list(pairs)[:layers]:
            for variable, value in zip(mine.variables, theirs.variables, strict=True):
                variable.assign(value)

    @property
    def stack(self) -> list[tf_keras.layers.Layer]:
        """Interaction layers and the output, from first to last."""
        return [*self.crosses, *self.deep.layers, self.output_layer]

    def _interact(
        self, batch: dict[str, tf.Tensor], training: bool
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Every activation, and the activated last one."""
        origin = embed(self.table, batch["ids"])  # (B, F * DIM)
        if self._known is not None:
            adapted = self.adapter(tf.gather(self._known, batch["user"]))
            if self._gated:
                origin *= tf.sigmoid(adapted)
            else:
                origin = tf.concat([origin, adapted], axis=-1)  # (B, F * DIM + SUM_WIDTH)
        activations = [origin]
        for cross in self.crosses:
            activations.append(cross((origin, activations[-1]), training=training))
        hidden, output = self.deep(activations[-1], training=training)
        return activations + hidden, output


def embed(table: tf.Variable, ids: tf.Tensor) -> tf.Tensor:
    """Concatenated embeddings of all fields.

    Args:
        table: (rows, DIM).
        ids: (B, F).

    Returns:
        (B, F * DIM).
    """
    rows = tf.gather(table, ids)  # (B, F, DIM)
    return tf.reshape(rows, [-1, ids.shape[1] * DIM])  # (B, F * DIM)


def build_linear(dense: tf_keras.layers.Dense, draw: np.random.Generator, inputs: int) -> None:
    """Builds a dense layer and gives it a linear layer's initial values."""
    if not dense.built:
        dense.build(tf.TensorShape([None, inputs]))
    dense.set_weights(linear_values(draw, inputs, dense.units))
