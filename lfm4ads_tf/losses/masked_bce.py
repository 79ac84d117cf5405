"""Binary cross-entropy over the known labels of several tasks."""

from __future__ import annotations

import tensorflow as tf


def masked_bce(labels: tf.Tensor, logits: tf.Tensor, task_weights: tf.Tensor) -> tf.Tensor:
    """L = sum_t lambda_t sum_{b: y_bt known} BCE(sigmoid(z_bt), y_bt) / B.

    Dividing by the rows of the batch, not by the known labels, keeps the weight of a row the same
    in a batch with many unknown labels.

    Args:
        labels: (B, T) of 0 and 1, NaN where unknown.
        logits: (B, T).
        task_weights: lambda, (T,).

    Returns:
        Scalar loss.
    """
    known = tf.math.is_finite(labels)
    safe = tf.where(known, labels, tf.zeros_like(labels))
    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=safe, logits=logits)  # (B, T)
    losses = tf.where(known, losses, tf.zeros_like(losses))
    return tf.reduce_sum(tf.reduce_mean(losses, axis=0) * task_weights)
