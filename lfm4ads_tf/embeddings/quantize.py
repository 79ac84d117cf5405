"""A table of 8-bit integers for inference: one scale per row and set."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from lfm4ads_tf.errors import UserError

LEVELS = 127  # the largest code; -128 is not used, so that x and -x are alike
_SMALLEST = float(np.finfo(np.float32).tiny)  # below it TensorFlow computes with zeros


class QuantizedTable(tf.Module):
    """A table W (rows, K D), kept as integers and scales, that is read but not trained.

        W[r, k, d] = s[r, k] q[r, k, d],    s[r, k] = max_d |W[r, k, d]| / 127,
        q[r, k, d] = round(W[r, k, d] / s[r, k])

    An element is at most s / 2 off, a set of zeros is exact, and W and -W differ in sign alone.
    The table takes K (D + 4) bytes per row, (D + 4) / (4 D) of float32. Rows are multiplied out
    after they are gathered, by TensorFlow's own ops; nothing ever holds the table in float32.

    Args:
        name: Of the variables, which append `/codes` and `/scales`.
        rows: Rows of the table.
        sets: Sets K per row.
        dim: Width D of a set.

    Attributes:
        codes: q, (rows, K D) int8.
        scales: s, (rows, K) float32.
    """

    def __init__(self, name: str, rows: int, sets: int, dim: int) -> None:
        super().__init__()
        self.sets, self.dim = sets, dim
        codes, scales = tf.zeros([rows, sets * dim], tf.int8), tf.zeros([rows, sets])
        self.codes = tf.Variable(codes, trainable=False, name=f"{name}/codes")
        self.scales = tf.Variable(scales, trainable=False, name=f"{name}/scales")

    @property
    def shape(self) -> tf.TensorShape:
        """(rows, K D)."""
        return self.codes.shape

    @property
    def dtype(self) -> tf.DType:
        """Type of the codes."""
        return self.codes.dtype

    def gather(self, rows: tf.Tensor) -> tf.Tensor:
        """Rows of the table, (N,) int64 to (N, K D) float32."""
        codes = tf.cast(tf.gather(self.codes, rows), tf.float32)  # (N, K*D)
        scales = tf.gather(self.scales, rows)  # (N, K)
        if self.sets == 1:
            return codes * scales
        values = tf.reshape(codes, [-1, self.sets, self.dim]) * scales[:, :, tf.newaxis]
        return tf.reshape(values, [-1, self.sets * self.dim])  # (N, K*D)

    def write_rows(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Overwrites rows.

        Args:
            rows: Distinct rows, (N,) int64.
            values: Their new values, (N, K D) float32.

        Raises:
            UserError: A value is not finite; nothing is written then.
        """
        codes, scales = quantized(values, self.sets)
        places = tf.constant(rows, tf.int64)
        self.codes.scatter_update(tf.IndexedSlices(tf.constant(codes), places))
        self.scales.scatter_update(tf.IndexedSlices(tf.constant(scales), places))


def quantized(values: np.ndarray, sets: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes and scales of rows, see `QuantizedTable`.

    Args:
        values: (N, K D) float32.
        sets: K.

    Returns:
        Codes (N, K D) int8 within [-127, 127], scales (N, K) float32: 0 where a set is zero.

    Raises:
        UserError: A value is not finite.
    """
    if not np.isfinite(values).all():
        bad = values[~np.isfinite(values)][0]
        raise UserError(
            "A table with values that are not finite cannot be kept as int8.",
            received=bad,
            fix="train again from a checkpoint before the values were lost, with a lower "
            "table_learning_rate or a clip_norm",
        )
    # the quotient in double precision: rounded to float32, it may fall to the other side of a half
    dim = values.shape[1] // sets
    cut = np.asarray(values, np.float64).reshape(len(values), sets, dim)  # (N, K, D)
    largest = np.abs(cut).max(axis=2, initial=0.0)  # (N, K)
    scales = np.where(largest > 0, np.maximum(largest / LEVELS, _SMALLEST), 0.0)
    scales = scales.astype(np.float32)
    divisor = np.where(scales > 0, scales, 1.0).astype(np.float64)[:, :, np.newaxis]  # (N, K, 1)
    codes = np.rint(cut / divisor).astype(np.int8)
    return codes.reshape(values.shape), scales  # (N, K*D)
