"""Stored representations of one kind inside a SavedModel, looked up by key."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from lfm4ads_tf.embeddings import table_shards
from lfm4ads_tf.embeddings.config import ServedStorage
from lfm4ads_tf.embeddings.quantize import QuantizedTable
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.export.verify_child import EPS, ROUNDINGS
from lfm4ads_tf.features.fingerprints import text_fingerprints


class RepresentationLookup(tf.Module):
    """Key -> [r; 1], and zeros for a key that has none (a cold key).

    Keys are kept as their sorted 64-bit fingerprints: 8 bytes a key, found by binary search, and
    nothing has to be built when the model is loaded. Two stored keys of one fingerprint are
    refused; a cold key meets a stored one's fingerprint with the probability M / 2**64.

    Args:
        name: Of the representation.
        keys: M distinct keys, text; null and "" are cold.
        vectors: (M, d) float32.
        storage: Type in which the vectors are kept.

    Raises:
        UserError: Two keys have one fingerprint, or a value cannot be kept in this type.
    """

    def __init__(
        self, name: str, keys: pa.Array, vectors: np.ndarray, storage: ServedStorage = "float32"
    ) -> None:
        super().__init__()
        self.width = int(vectors.shape[1])
        texts = keys.cast(pa.binary()).fill_null(b"").to_numpy(zero_copy_only=False)
        known = np.flatnonzero(texts != b"")
        prints = _fingerprints(tf.constant(texts[known], tf.string)).numpy()
        order = np.argsort(prints, kind="stable")
        prints, known = prints[order], known[order]
        same = np.flatnonzero(prints[1:] == prints[:-1])
        if len(same):
            both = [texts[known[same[0] + i]].decode("utf-8", "replace") for i in (0, 1)]
            raise UserError(
                f"Two keys of the representation '{name}' cannot be told apart in a lookup.",
                received=f"{both[0]!r} and {both[1]!r} with one 64-bit fingerprint",
                fix="set export.representations=request, or give one of them another key",
            )
        label = re.sub(r"[^\w.-]", "_", name)
        # the row behind the last key's is zero: what a cold key reads
        rows = len(prints) + 1
        self._prints = tf.Variable(
            np.append(prints, np.int64(np.iinfo(np.int64).max)),
            trainable=False,
            name=f"{label}/keys",
        )
        self._table: Any
        if storage == "int8":
            self._table = QuantizedTable(f"{label}/vectors", rows, 1, self.width)
        else:
            self._table = table_shards.partitioned_variable(
                f"{label}/vectors", rows, self.width, 1, 0.0, trainable=False, storage=storage
            )
        table_shards.scatter_rows([self._table], np.arange(len(prints)), vectors[known])
        self._cold = len(prints)

    def __call__(self, keys: tf.Tensor) -> tf.Tensor:
        """Representations of some keys.

        Args:
            keys: (B,) string.

        Returns:
            (B, d + 1) float32, the last column 1 where the key has a representation.
        """
        prints = _fingerprints(keys)  # (B,)
        place = tf.searchsorted(self._prints, prints, out_type=tf.int64)  # (B,)
        known = tf.equal(tf.gather(self._prints, place), prints) & tf.not_equal(keys, "")
        known &= place < self._cold
        rows = tf.where(known, place, tf.constant(self._cold, tf.int64))
        vectors = table_shards.read_shards([self._table], rows)  # (B, d)
        return tf.concat([vectors, tf.cast(known, tf.float32)[:, tf.newaxis]], axis=1)  # (B, d + 1)


def storage_rounding(vectors: np.ndarray, storage: ServedStorage) -> np.ndarray:
    """What keeping vectors in a type may change in each of their numbers.

        float16: 2^-11 |v|, and half of its smallest number;   int8: max |row| / 254, half a step

    Args:
        vectors: (B, d).
        storage: The type.

    Returns:
        (B, d) float64; rounding of float32 itself is in it.
    """
    sizes = np.abs(vectors.astype(np.float64))
    float32_rounding = ROUNDINGS * EPS * sizes
    if storage == "float16":
        return np.asarray(sizes * 2.0**-11 + 2.0**-25 + float32_rounding)
    if storage == "int8":
        return np.asarray(
            sizes.max(axis=1, keepdims=True, initial=0.0) / 254 * (1 + EPS) + float32_rounding
        )
    return float32_rounding


def _fingerprints(keys: tf.Tensor) -> tf.Tensor:
    """int64 of the shape of `keys`; signed, so that a binary search has a kernel for them."""
    return tf.bitcast(text_fingerprints(keys), tf.int64)
