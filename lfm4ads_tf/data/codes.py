"""Keys as dense integer codes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def factorize(texts: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Codes (N,) int64 in order of first appearance, -1 for a missing text, and the texts."""
    encoded = texts.dictionary_encode()
    codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes, encoded.dictionary


def combine(parts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """One code per distinct tuple of codes.

    Args:
        parts: Codes (N,) of each part, -1 where missing.

    Returns:
        Code of each row (N,), -1 where any part is missing, and the tuples by code (M, parts).
    """
    present = np.logical_and.reduce([p >= 0 for p in parts])
    codes = np.full(len(present), -1, np.int64)
    stacked = np.stack([p[present] for p in parts], axis=1)  # (rows present, parts)
    if not len(stacked):
        return codes, np.zeros((0, len(parts)), np.int64)
    # Mixed radix: one integer per tuple sorts far faster than rows of a matrix.
    radix = np.zeros(len(stacked), np.int64)
    for column in range(stacked.shape[1]):
        values = stacked[:, column]
        _, dense = np.unique(values, return_inverse=True)
        radix = radix * (int(dense.max()) + 1) + dense
        _, radix = np.unique(radix, return_inverse=True)
    _, first, inverse = np.unique(radix, return_index=True, return_inverse=True)
    codes[present] = inverse
    return codes, stacked[first]
