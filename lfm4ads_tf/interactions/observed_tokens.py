"""Tokens at one place of a layer, for who looks inside a model."""

from __future__ import annotations

import tensorflow as tf


class ObservedTokens(tf.experimental.ExtensionType):
    """What a layer holds at one place, token by token.

    A layer hands it out by `InteractionLayer.observed`, beside or instead of numbers of each row.

    Attributes:
        values: X, (N, B, D).
        names: What each token is made of, N.
        tasks: The tasks whose tokens are the last ones, in order.
    """

    values: tf.Tensor
    names: tuple[str, ...]
    tasks: tuple[str, ...] = ()
