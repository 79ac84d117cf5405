"""Mixing of tokens without a parameter."""

from __future__ import annotations

import tensorflow as tf


def mix(tokens: tf.Tensor, heads: int) -> tf.Tensor:
    """Views X (N, H, D/H), swaps to (H, N, D/H) and flattens to (H, N D/H), row by row.

    Token h of the result holds head h of every token, token after token. With H = N the shape
    stays, mixing twice gives X again, and entries only change places.

    Args:
        tokens: X, token by token (N, B, D).
        heads: H, a divisor of D.

    Returns:
        (H, B, N D/H).

    Source: RankMixer (arXiv 2507.15551), multi-head token mixing.
    """
    count, width = int(tokens.shape[0]), int(tokens.shape[2])
    part = width // heads
    apart = tf.reshape(tokens, [count, -1, heads, part])  # (N, B, H, D/H)
    swapped = tf.transpose(apart, [2, 1, 0, 3])  # (H, B, N, D/H)
    return tf.reshape(swapped, [heads, -1, count * part])


def unmix(mixed: tf.Tensor, tokens: int) -> tf.Tensor:
    """The inverse of `mix`.

    Args:
        mixed: (H, B, N D/H).
        tokens: N.

    Returns:
        (N, B, D).
    """
    return mix(mixed, tokens)


def rank_after_mixing(width: int, heads: int) -> int:
    """The most that mixing makes of a collapsed input X = u v^T: min(H, D/H).

    rank(Mix(u v^T)) is the rank of v seen as (H, D/H): token h of the result is the products of
    u's entries and v's head h, so that the tokens span as many dimensions as the heads do.

    Args:
        width: D.
        heads: H.
    """
    return min(heads, width // heads)
