"""A penalty on what experts have in common: the covariances between their outputs."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import tensorflow as tf

Normalise = Literal["rows", "none"]


def covariance_penalty(
    outputs: tf.Tensor, *, rows: int | None = None, normalise: Normalise = "rows"
) -> tf.Tensor:
    """L = (1 / h^2) sum_{p > q} sum_ab |C_pq|, C_pq = (O^p - mean)^T (O^q - mean) [/ (B - 1)].

    An expert's covariance with itself is left out: that would push its variance to zero. The
    gradient is dL / dO^p = (1 / h^2) sum_{q != p} (O^q - mean) sign(C_pq)^T, divided likewise.

    Of some rows alone, C is that of these rows times (B - 1) / (n - 1), which is unbiased; |C| is
    not: see `sampling_floor`.

    Args:
        outputs: O, (B, M, h) for M experts.
        rows: How many rows n it is computed on, spread evenly over the batch; all where absent.
        normalise: `rows` divides by B - 1, so that a batch's size does not matter.

    Returns:
        Scalar; 0 of one expert, and of one row.

    Source: Crocodile (CIKM 2024, arXiv 2405.12706), known at second hand; there without the
    division, and its index set is read as p > q.
    """
    batch = tf.shape(outputs)[0]
    experts, width = int(outputs.shape[1]), int(outputs.shape[2])
    held = outputs
    if rows is not None:
        count = tf.minimum(rows, batch)
        held = tf.gather(outputs, tf.range(count) * batch // tf.maximum(count, 1))  # (n, M, h)
    free = tf.cast(tf.maximum(tf.shape(held)[0] - 1, 1), outputs.dtype)
    scale = 1 / free if normalise == "rows" else tf.cast(batch - 1, outputs.dtype) / free
    centred = held - tf.reduce_mean(held, axis=0, keepdims=True)
    flat = tf.reshape(centred, [-1, experts * width])  # (n, M h)
    of_expert = np.repeat(np.arange(experts), width)
    between = tf.constant(of_expert[:, None] != of_expert, outputs.dtype)  # (M h, M h)

    @tf.custom_gradient
    def penalty(x: tf.Tensor) -> tuple[tf.Tensor, Any]:
        covariances = tf.matmul(x, x, transpose_a=True) * (between * (scale / width**2))

        def grad(upstream: tf.Tensor) -> tf.Tensor:
            # both triangles hold the same pairs, and so does the sum below twice
            signs = tf.sign(covariances) * (scale / width**2)
            return upstream * tf.matmul(x, signs)

        return 0.5 * tf.reduce_sum(tf.abs(covariances)), grad

    return penalty(flat)


def sampling_floor(experts: int, rows: int) -> float:
    """What the penalty of independent outputs of variance 1 reads on a sample, `normalise: rows`.

    A sample covariance of two independent columns has the mean 0 and the deviation 1 / sqrt(n - 1),
    and of a normal variable |z| has the mean sqrt(2 / pi): each of the h^2 entries of each of the
    M (M - 1) / 2 pairs reads sqrt(2 / (pi (n - 1))) where the truth is 0.

    Args:
        experts: M.
        rows: n, two or more.
    """
    return experts * (experts - 1) / 2 * float(np.sqrt(2 / (np.pi * (rows - 1))))
