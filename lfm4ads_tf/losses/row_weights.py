"""Weights of a batch's rows in the losses."""

from __future__ import annotations

import tensorflow as tf


def task_columns(weights: tf.Tensor) -> tf.Tensor:
    """Weights of rows as columns that broadcast over the tasks.

    Args:
        weights: (B,), the same for all tasks, or (B, T).

    Returns:
        (B, 1) or (B, T).
    """
    return weights if weights.shape.rank == 2 else weights[:, tf.newaxis]  # (B, 1)
