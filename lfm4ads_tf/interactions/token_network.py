"""A network of every token's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import tensorflow as tf
import tf_keras

from lfm4ads_tf.interactions.expert_bank import constant, stacked_glorot
from lfm4ads_tf.kernels.bias import biased_gelu, biased_relu
from lfm4ads_tf.precision import product
from lfm4ads_tf.rebuildable import Rebuildable

Network = Literal["gelu", "swiglu"]


class TokenNetwork(Rebuildable, tf_keras.layers.Layer):
    """Two dense layers over each token with weights of its own, all tokens in one batched product.

        gelu:    W2_n gelu(W1_n x_n + b1_n) + b2_n                hidden width k D
        swiglu:  W3_n (silu(W1_n x_n) * W2_n x_n)                 hidden width round(2 k D / 3)

    Both have about N 2 k D^2 parameters. Each matrix starts as a Glorot-uniform one of its own
    whose values depend on seed, name and number of the token.

    With e experts every token has e such networks e_nj, each as wide as one alone, and routes:

        G_nj = relu(w_nj . x_n + c_nj),  v_n = sum_j G_nj e_nj(x_n)

    A token of which no expert fires gives 0. The sum over its experts is inside of the second
    product, so that all tokens and experts are one batched product still; an expert that does not
    fire is multiplied by 0, not left out. c starts at 1 / sqrt(e): with sum_j G_nj^2 = 1 the sum of
    e independent networks is as large as one of them. w starts at a tenth of that times a
    Glorot-uniform one: routes of normalised tokens differ by about a seventh and are open.

    Args:
        kind: See above.
        expansion: k.
        experts: e; of 1 there are no routes.
        seed: Seed of the initial weights.

    Source: RankMixer (arXiv 2507.15551), the per-token feed-forward network and its sparse
    experts; RankUp (arXiv 2604.17878), SwiGLU in its place. The width of the latter, and where
    routes start, are ours.
    """

    def __init__(
        self,
        kind: Network = "gelu",
        expansion: float = 4,
        *,
        experts: int = 1,
        seed: int = 0,
        name: str = "token_network",
    ) -> None:
        super().__init__(name=name)
        self.kind = kind
        self.expansion = expansion
        self.experts = experts
        self.seed = seed

    def hidden(self, width: int) -> int:
        """Width of an expert's hidden layer for tokens of a width D."""
        factor = 1.0 if self.kind == "gelu" else 2.0 / 3.0
        return max(1, round(factor * self.expansion * width))

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes the weights for the tokens' number and width."""
        count, width = int(input_shape[0]), int(input_shape[-1])
        hidden, experts = self.hidden(width), self.experts

        def drawn(name: str, below: int, above: int) -> tf.Tensor:
            names = [f"{self.name}/token_{n}/{name}" for n in range(count)]
            return stacked_glorot(self.seed, names, (below, above))

        def weight(name: str, initial: tf.Tensor) -> tf.Variable:
            return self.add_weight(name=name, shape=initial.shape, initializer=constant(initial))

        # a token is read once by all its experts, and by both of swiglu's first matrices
        owners = [""] if experts == 1 else [f"expert_{j}/" for j in range(experts)]
        pieces = [""] if self.kind == "gelu" else ["", "1"]
        first = [drawn(f"{o}kernel_1{p}", width, hidden) for p in pieces for o in owners]
        self.first = weight("kernel_1", tf.concat(first, axis=-1))  # (N, D, e k D), or twice
        last = [drawn(f"{owner}kernel_2", hidden, width) for owner in owners]
        self.last = weight("kernel_2", tf.concat(last, axis=1))  # (N, e k D, D)
        if self.kind == "gelu":
            self.first_bias = self.add_weight(
                name="bias_1", shape=(count, 1, experts * hidden), initializer="zeros"
            )
            self.last_bias = self.add_weight(
                name="bias_2", shape=(count, experts, width), initializer="zeros"
            )
        if experts > 1:
            start = experts**-0.5
            self.router = weight("router", 0.1 * start * drawn("router", width, experts))
            self.router_bias = self.add_weight(
                name="router_bias",
                shape=(count, 1, experts),
                initializer=tf_keras.initializers.Constant(start),
            )
        super().build(input_shape)

    def call(
        self,
        tokens: tf.Tensor,
        training: bool = False,
        routed: Callable[[tf.Tensor], None] = lambda _: None,
    ) -> tf.Tensor:
        """Runs every token through its own layers.

        Args:
            tokens: Token by token, (N, B, D).
            training: Whether compiled kernels may be used; an exported graph holds none.
            routed: Given the routes G, (N, B, e), where there are some.

        Returns:
            (N, B, D).
        """
        read = product(tokens, self.first)  # (N, B, e k D), or both of swiglu side by side
        if self.kind == "gelu":
            hidden = biased_gelu(read, self.first_bias, training=training)
        else:
            gate, value = tf.split(read, 2, axis=-1)
            hidden = tf.nn.silu(gate) * value
        if self.experts == 1:
            made = product(hidden, self.last)
            return made + self.last_bias if self.kind == "gelu" else made
        scores = product(tokens, self.router)  # (N, B, e)
        routes = biased_relu(scores, self.router_bias, training=training)
        routed(routes)
        count, width = int(tokens.shape[0]), int(hidden.shape[-1])
        apart = tf.reshape(hidden, [count, -1, self.experts, width // self.experts])
        hidden = tf.reshape(apart * routes[..., tf.newaxis], [count, -1, width])  # (N, B, e k D)
        made = product(hidden, self.last)  # sum_j G_j W2_j h_j
        return made + product(routes, self.last_bias) if self.kind == "gelu" else made
