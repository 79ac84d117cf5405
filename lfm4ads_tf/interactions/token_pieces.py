"""Tokens in pieces: what one row stands for all of stays one row until all stand side by side."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import tensorflow as tf

from lfm4ads_tf.precision import product


def token_pieces(
    start: tf.Tensor, parts: Sequence[tuple[Sequence[int], tf.Tensor]]
) -> list[tf.Tensor]:
    """Sums what parts of the inputs give some tokens, in runs of tokens that the same parts reach.

    Args:
        start: What each token starts from, such as biases, (N, 1, D).
        parts: Places of tokens in rising order, and what is added to them, (N', B, D); one row, of
            static size 1, stands for B equal ones.

    Returns:
        In the order of the tokens, each (n, B, D), or (n, 1, D) of tokens that are of one row.
    """
    count = int(start.shape[0])
    many: list[tuple[Sequence[int], tf.Tensor]] = []
    for places, values in parts:
        if values.shape[1] != 1:
            many.append((places, values))
        elif len(places) == count:
            start += values
        else:
            start = tf.tensor_scatter_nd_add(start, [[n] for n in places], values)
    reached = [tuple(k for k, (places, _) in enumerate(many) if n in places) for n in range(count)]
    lengths = [(key, len(list(run))) for key, run in groupby(reached)]
    pieces = _split(start, [length for _, length in lengths])
    for k, (_, values) in enumerate(many):
        runs = iter(_split(values, [length for key, length in lengths if k in key]))
        for n, (key, _) in enumerate(lengths):
            pieces[n] = pieces[n] + next(runs) if k in key else pieces[n]
    return pieces


def token_products(values: tf.Tensor, kernels: tf.Tensor) -> tf.Tensor:
    """x_n W_n for all n, of B rows one batched product.

    Of one row it is a sum over the entries of x_n: what a batched product prepares takes longer.

    Args:
        values: (N, B, w), or (N, 1, w) with a static size 1.
        kernels: (N, w, D).

    Returns:
        (N, B, D).
    """
    if values.shape[1] != 1:
        return product(values, kernels)
    return tf.reduce_sum(tf.transpose(values, [0, 2, 1]) * kernels, axis=1, keepdims=True)


def joined_tokens(pieces: Sequence[tf.Tensor]) -> tf.Tensor:
    """All pieces side by side.

    Args:
        pieces: Each (n, B, D), or (n, 1, D) with a static size 1.

    Returns:
        (N, B, D), or (N, 1, D) where all are of one row.
    """
    if len(pieces) == 1:
        return pieces[0]
    long = [piece for piece in pieces if piece.shape[1] != 1]
    if long:
        rows = tf.shape(long[0])[1]
        pieces = [of_rows(piece, rows) for piece in pieces]
    return tf.concat(pieces, axis=0)


def of_rows(tokens: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Tokens of one row as of `rows` equal ones, (N, B, D)."""
    return tokens if tokens.shape[1] != 1 else tf.tile(tokens, [1, rows, 1])


def _split(values: tf.Tensor, sizes: Sequence[int]) -> list[tf.Tensor]:
    """Values cut along their first axis; a split's gradient is one concatenation."""
    return [values] if len(sizes) == 1 else tf.split(values, list(sizes))
