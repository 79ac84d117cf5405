"""One token for all fields together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import tensorflow as tf
import tf_keras

from lfm4ads_tf.precision import dense
from lfm4ads_tf.rebuildable import Rebuildable
from lfm4ads_tf.seeding import glorot

Pool = Literal["mean", "mlp", "fm", "cross"]


class GlobalToken(Rebuildable, tf_keras.layers.Layer):
    """g = func(p), p the mean over the fields of P_w e_f, one projection P_w for each width w.

        mean:   g = p
        mlp:    g = V2 gelu(V1 p + c1) + c2                   hidden width D
        fm:     g = V (((sum_f v_f)^2 - sum_f v_f^2) / (2 F)) + c,  v_f = P_w e_f
        cross:  g = p * (V p + c) + p

    Sums over fields of one row that stands for all are taken once.

    Args:
        func: See above.
        dim: Width D of the token.
        seed: Seed of the initial weights.

    Source: RankUp (arXiv 2604.17878), the global token; which function is meant is not said, and
    the forms are ours.
    """

    def __init__(self, func: Pool, dim: int, *, seed: int = 0, name: str = "global_token") -> None:
        super().__init__(name=name)
        self.func = func
        self.dim = dim
        self.seed = seed

    def build(self, input_shape: Sequence[tf.TensorShape]) -> None:
        """Makes the projections of the widths, and the function's weights."""

        def layer(name: str, *, bias: bool, activation: str | None = None) -> None:
            made = tf_keras.layers.Dense(
                self.dim,
                use_bias=bias,
                activation=activation,
                kernel_initializer=glorot(self.seed, f"{self.name}/{name}"),
                name=name,
                dtype=self.dtype_policy,
            )
            self.made[name] = made

        self.made: dict[str, tf_keras.layers.Dense] = {}
        for width in dict.fromkeys(int(shape[-1]) for shape in input_shape):
            layer(f"project_{width}", bias=False)
        if self.func == "mlp":
            layer("hidden", bias=True, activation="gelu")
        if self.func != "mean":
            layer("output", bias=True)
        super().build(input_shape)

    def carry(self, target: GlobalToken) -> None:
        """Copies the weights to a token of other fields; a width that only it has gets zeros.

        Args:
            target: The token that gets them; it was called.
        """
        for name, layer in target.made.items():
            mine = self.made.get(name)
            for k, variable in enumerate(layer.variables):
                variable.assign(tf.zeros_like(variable) if mine is None else mine.variables[k])

    def call(self, values: Sequence[tf.Tensor]) -> tf.Tensor:
        """Makes the token.

        Args:
            values: Embeddings (B, F_w, w) of the fields of each group, of which one row stands for
                B equal ones.

        Returns:
            (B, D).
        """
        count = sum(int(group.shape[1]) for group in values)
        total = tf.zeros([1, self.dim], values[0].dtype)
        squares = tf.zeros([1, self.dim], values[0].dtype)
        for group in values:
            project = self.made[f"project_{group.shape[-1]}"]
            if self.func == "fm":
                flat = tf.reshape(group, [-1, group.shape[-1]])
                vectors = tf.reshape(dense(project, flat), [-1, group.shape[1], self.dim])
                total += tf.reduce_sum(vectors, axis=1)
                squares += tf.reduce_sum(tf.square(vectors), axis=1)
            else:  # the sum of projections is the projection of the sum
                total += dense(project, tf.reduce_sum(group, axis=1))
        if self.func == "fm":
            pooled = 0.5 * (tf.square(total) - squares) / count
        else:
            pooled = total / count  # (B, D)
        if self.func == "mean":
            return pooled
        if self.func == "cross":
            return pooled * dense(self.made["output"], pooled) + pooled
        read = dense(self.made["hidden"], pooled) if self.func == "mlp" else pooled
        return dense(self.made["output"], read)
