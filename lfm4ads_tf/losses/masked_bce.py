"""Binary cross-entropy over the known labels of several tasks."""

from __future__ import annotations

import tensorflow as tf

from lfm4ads_tf.losses.row_weights import task_columns


def masked_bce(
    labels: tf.Tensor,
    logits: tf.Tensor,
    task_weights: tf.Tensor,
    row_weights: tf.Tensor | None = None,
) -> tf.Tensor:
    """L = sum_t lambda_t sum_{b: y_bt known} w_bt BCE(sigmoid(z_bt), y_bt) / B.

    Dividing by the rows of the batch, not by the known labels or by the weights, keeps what a row
    adds the same whatever the rest of its batch holds.

    Args:
        labels: (B, T) of 0 and 1, NaN where unknown.
        logits: (B, T).
        task_weights: lambda, (T,).
        row_weights: w, (B,) or (B, T); None is 1 for all.

    Returns:
        Scalar loss.
    """
    known = tf.math.is_finite(labels)
    safe = tf.where(known, labels, tf.zeros_like(labels))
    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=safe, logits=logits)  # (B, T)
    losses = tf.where(known, losses, tf.zeros_like(losses))
    if row_weights is not None:
        losses *= task_columns(row_weights)  # (B, T)
    return tf.reduce_sum(tf.reduce_mean(losses, axis=0) * task_weights)
