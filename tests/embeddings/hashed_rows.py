"""NumPy oracle of a hashed table: the two rows of each id."""

from __future__ import annotations

import numpy as np

from lfm4ads_tf.embeddings.hashing import Hashing

# Checkpoints hold rows in the order that these give: written out, so that no change goes unseen.
_MULTIPLIERS = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F)
_FINAL = 0xD6E8FEB86659FD93


def hashed_rows(hashing: Hashing, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `Hashing.rows` gives for ids of any one shape, int64 each."""
    ids = np.asarray(ids, np.int64)
    if hashing.kind == "quotient_remainder":
        return ids % hashing.buckets, hashing.buckets + ids // hashing.buckets
    rows = []
    for multiplier in _MULTIPLIERS:
        with np.errstate(over="ignore"):
            value = (ids.astype(np.uint64) + np.uint64(1)) * np.uint64(multiplier)
            value = (value ^ (value >> np.uint64(32))) * np.uint64(_FINAL)
        value ^= value >> np.uint64(32)
        rows.append((value % np.uint64(hashing.buckets)).astype(np.int64))
    return rows[0], rows[1]
