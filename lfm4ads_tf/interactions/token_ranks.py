"""How many dimensions the tokens of a row span."""

from __future__ import annotations

import tensorflow as tf


def token_ranks(tokens: tf.Tensor) -> dict[str, tf.Tensor]:
    """Ranks of each row's matrix of tokens X (N, D), none of them a whole number.

        erank    exp(-sum p ln p),  p = s / sum s        singular values s of X
        centred  the same of X less the mean over its tokens
        stable   sum s^2 / max s^2

    All lie between 1 and min(N, D), and 0 stands for X = 0. More tokens raise that bound, so
    `erank_share` and the others are divided by it. Singular values are the roots of the eigenvalues
    of the smaller Gram matrix, in float64: those below 1e-8 of the largest are rounding.

    Args:
        tokens: Token by token, (N, B, D).

    Returns:
        Name -> (B,) float64.

    Source: Roy and Vetterli, The Effective Rank (EUSIPCO 2007), as RankUp (arXiv 2604.17878) takes
    it per row; the stable rank as in RankElastor (arXiv 2605.23191).
    """
    rows = tf.cast(tf.transpose(tokens, [1, 0, 2]), tf.float64)  # (B, N, D)
    spread = _spectrum(rows)
    centred = _spectrum(rows - tf.reduce_mean(rows, axis=1, keepdims=True))
    energy = tf.square(spread)
    ranks = {
        "erank": _effective(spread),
        "centred": _effective(centred),
        "stable": tf.math.divide_no_nan(
            tf.reduce_sum(energy, axis=-1), tf.reduce_max(energy, axis=-1)
        ),
    }
    most = min(int(tokens.shape[0]), int(tokens.shape[2]))
    return ranks | {f"{name}_share": value / most for name, value in ranks.items()}


def _spectrum(rows: tf.Tensor) -> tf.Tensor:
    """Singular values of each matrix (B, N, D), (B, min(N, D))."""
    wide = rows.shape[1] <= rows.shape[2]
    gram = tf.matmul(rows, rows, transpose_a=not wide, transpose_b=wide)
    return tf.sqrt(tf.maximum(tf.linalg.eigvalsh(gram), 0.0))


def _effective(values: tf.Tensor) -> tf.Tensor:
    """exp of the entropy of singular values (B, n), 0 where all of them are; (B,)."""
    total = tf.reduce_sum(values, axis=-1, keepdims=True)
    shares = tf.math.divide_no_nan(values, total)
    entropy = -tf.reduce_sum(tf.math.xlogy(shares, shares), axis=-1)
    return tf.where(total[:, 0] > 0.0, tf.exp(entropy), tf.zeros_like(entropy))
