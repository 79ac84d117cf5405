"""How much the tokens of a row point the same way."""

from __future__ import annotations

import tensorflow as tf


def token_correlation(tokens: tf.Tensor) -> tf.Tensor:
    """d = 1 / (N (N - 1)) sum_{m != n} (x_m . x_n / |x_m| |x_n|)^2 of each row's tokens X (N, D).

    The mean squared cosine between two tokens, neither of them centred: 0 where all are orthogonal,
    1 where all lie on one line, the same whatever the tokens' lengths are. For unit tokens, the
    shares of whose squared singular values are q,

        1 / sum q^2 = N / (1 + (N - 1) d) <= erank

    so that a smaller d lifts a lower bound of the effective rank. With N > D it cannot fall below
    (N - D) / (D (N - 1)).

    Args:
        tokens: Token by token, (N, B, D), N of 2 or more.

    Returns:
        (B,).

    Source: ours. The bound on the mean is Welch's (1974).
    """
    count = int(tokens.shape[0])
    rows = tf.math.l2_normalize(tf.transpose(tokens, [1, 0, 2]), axis=-1)  # (B, N, D)
    cosines = tf.matmul(rows, rows, transpose_b=True)  # (B, N, N)
    between = 1.0 - tf.eye(count, dtype=tokens.dtype)
    return tf.reduce_sum(tf.square(cosines * between), axis=[1, 2]) / (count * (count - 1))
