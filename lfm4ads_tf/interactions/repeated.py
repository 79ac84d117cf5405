"""One row that stands for many."""

from __future__ import annotations

import tensorflow as tf


def repeated(values: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """One row (1, ...) as `rows` equal ones; values of more rows as they are."""
    if values.shape[0] != 1:
        return values
    wide = tf.broadcast_to(values, tf.concat([[rows], tf.shape(values)[1:]], axis=0))
    return tf.ensure_shape(wide, [None, *values.shape[1:]])
