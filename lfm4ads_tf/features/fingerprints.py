"""Hashing texts to ids, any number of columns in one op."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

# Both constants are part of tf.feature_column's crossed column: its default hash key, and the
# multiplier of TensorFlow's FingerprintCat64.
_CROSS_KEY = 0xDECAFCAFFE
_MULTIPLIER = 0xC6A4A7935BD1E995


def text_fingerprints(texts: tf.Tensor) -> tf.Tensor:
    """Fingerprint64 of each text, string -> uint64 of the same shape."""
    flat = tf.reshape(texts, [-1])  # (M,)
    codes = tf.bitcast(tf.fingerprint(flat), tf.uint64)  # (M, 8) bytes -> (M,)
    return tf.reshape(codes, tf.shape(texts))


def cross_fingerprints(fingerprints: tf.Tensor, used: np.ndarray) -> tf.Tensor:
    """Fingerprint of a combination of texts, as `tf.feature_column.crossed_column` makes it.

        h_0 = hash key;  h_i = FingerprintCat64(h_{i-1}, Fingerprint64(text_i))

    Args:
        fingerprints: Fingerprints of the parts, (F, A, B) uint64 for crosses of up to A columns.
        used: Which parts a cross has, (F, A) bool.

    Returns:
        (F, B) uint64.
    """
    parts = tf.unstack(fingerprints, axis=1)  # A x (F, B)
    combined = tf.fill(tf.shape(parts[0]), tf.constant(_CROSS_KEY, tf.uint64))
    for i, part in enumerate(parts):
        longer = _concatenate(combined, part)
        if used[:, i].all():
            combined = longer
        else:
            combined = tf.where(used[:, i, np.newaxis], longer, combined)
    return combined


def to_buckets(fingerprints: tf.Tensor, buckets: tf.Tensor) -> tf.Tensor:
    """fingerprint mod buckets, as int64; `buckets` is uint64 and broadcasts."""
    return tf.cast(tf.math.floormod(fingerprints, buckets), tf.int64)


def _concatenate(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """FingerprintCat64 of TensorFlow's core, on uint64."""
    multiplier = tf.constant(_MULTIPLIER, tf.uint64)
    result = tf.bitwise.bitwise_xor(first, multiplier)
    result = tf.bitwise.bitwise_xor(result, _shift_mix(second * multiplier) * multiplier)
    return _shift_mix(_shift_mix(result * multiplier) * multiplier)


def _shift_mix(value: tf.Tensor) -> tf.Tensor:
    return tf.bitwise.bitwise_xor(value, tf.bitwise.right_shift(value, tf.constant(47, tf.uint64)))
