"""Several hashes per key: a very large id space in few rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import tensorflow as tf

from lfm4ads_tf.errors import UserError

# odd constants of a 64-bit finalizer, and one stream of ids per hash
_MULTIPLIERS = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F)
_FINAL = 0xD6E8FEB86659FD93
_HALF = 32


@dataclass(frozen=True)
class Hashing:
    """Two rows per id, whose embeddings are added.

        double              e(id) = W[h_1(id)] + W[h_2(id)], h_j(id) in [0, buckets)
        quotient_remainder  e(id) = W[id mod buckets] + W[buckets + id div buckets]

    Under `double` two ids share an embedding only where both hashes collide; the table has
    `buckets` rows whatever the number of ids. Under `quotient_remainder` no two ids share both
    rows; the table has buckets + ceil(ids / buckets) rows, the fewest with buckets = sqrt(ids).

    Args:
        kind: Which of the two.
        buckets: Rows of the hashes, or the divisor; above 0.

    Raises:
        UserError: An unknown kind, or fewer than one bucket.

    Sources: Zhang et al., RecSys 2020, "Model size reduction using frequency based double hashing";
    Shi et al., KDD 2020, "Compositional embeddings using complementary partitions", section 3.
    """

    kind: Literal["double", "quotient_remainder"]
    buckets: int

    def __post_init__(self) -> None:
        if self.kind not in ("double", "quotient_remainder"):
            raise UserError(
                "Unknown hashing of an embedding table.",
                received=self.kind,
                fix="Use 'double' or 'quotient_remainder'.",
            )
        if self.buckets < 1:
            raise UserError("Hashing needs at least one bucket.", received=self.buckets)

    def stored_rows(self, ids: int) -> int:
        """Rows that a table of `ids` ids keeps."""
        if self.kind == "double":
            return self.buckets
        return self.buckets + -(-ids // self.buckets)

    def rows(self, ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The two rows of ids, int64 of any one shape; negative ids give rows of no meaning."""
        if self.kind == "quotient_remainder":
            return ids % self.buckets, self.buckets + ids // self.buckets
        first, second = (self._hash(ids, stream) for stream in (0, 1))
        return first, second

    def _hash(self, ids: tf.Tensor, stream: int) -> tf.Tensor:
        half = tf.constant(_HALF, tf.uint64)
        value = tf.cast(ids, tf.uint64) + tf.constant(1, tf.uint64)
        value *= tf.constant(_MULTIPLIERS[stream], tf.uint64)
        value = tf.bitwise.bitwise_xor(value, tf.bitwise.right_shift(value, half))
        value *= tf.constant(_FINAL, tf.uint64)
        value = tf.bitwise.bitwise_xor(value, tf.bitwise.right_shift(value, half))
        return tf.cast(tf.math.floormod(value, tf.constant(self.buckets, tf.uint64)), tf.int64)
