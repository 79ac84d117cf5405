"""How much tokens move together."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lfm4ads_tf.diagnostics.parts import parts

_ROUNDING = 1e-6  # of the largest magnitude: a float32 that varies less does not vary


def token_correlations(tokens: tf.Tensor) -> NDArray[np.float64]:
    """Mean absolute correlation of every two tokens over the rows of a sample.

        c_mn = mean over the coordinates d of |corr over rows (x_md, x_nd)|

    Coordinates in which one of the two does not vary are left out. Of independent tokens of B rows
    it is about sqrt(2 / (pi B)), not 0. It does not change when a token is scaled or moved by a
    constant, or when the coordinates of all tokens change places.

    Args:
        tokens: Token by token, (N, B, D).

    Returns:
        (N, N), NaN where no coordinate is left.
    """
    count, rows, width = tokens.shape
    total, known = np.zeros((count, count)), np.zeros((count, count))
    for some in parts(width, count * rows * width):
        few = tf.transpose(tokens[..., some], [2, 0, 1])  # (D', N, B)
        values = tf.cast(few, tf.float64)
        largest = tf.reduce_max(tf.abs(values), axis=-1)
        values -= tf.reduce_mean(values, axis=-1, keepdims=True)
        lengths = tf.norm(values, axis=-1)  # (D', N)
        varies = tf.cast(lengths > _ROUNDING * largest * rows**0.5, tf.float64)
        values *= tf.math.divide_no_nan(varies, lengths)[..., tf.newaxis]
        total += tf.reduce_sum(tf.abs(tf.matmul(values, values, transpose_b=True)), 0).numpy()
        known += tf.matmul(varies, varies, transpose_a=True).numpy()
    return np.divide(total, known, out=np.full_like(total, np.nan), where=known > 0)


def pair_mean(matrix: NDArray[np.float64]) -> float | None:
    """Mean over the pairs m < n of what is known of them; None where nothing is.

    Args:
        matrix: Symmetric, (N, N), NaN where unknown.
    """
    values = matrix[np.triu_indices(len(matrix), 1)]
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None
