"""Rows of an encoded cache in the form that `encode_columns` gives."""

from __future__ import annotations

from typing import Any

import numpy as np

from lfm4ads_tf.data.cache import Bag, EncodedCache

_CHUNK = 65_536


def encoded_rows(cache: EncodedCache, rows: np.ndarray) -> dict[str, Any]:
    """Features of some rows, each in the state of its own period.

    Args:
        cache: The encoded cache.
        rows: Training rows, (R,).

    Returns:
        `ids` (R, F) int32, `dense` (R, N) float32, `scenario` (R,) int32, and `bags`: feature ->
        (values (V,) int32, row splits (R + 1,) int64, weights (V,) float32 or None).
    """
    ids: list[np.ndarray] = []
    dense: list[np.ndarray] = []
    scenario: list[np.ndarray] = []
    bags: dict[str, list[Bag]] = {name: [] for name in cache.manifest["bags"]}
    for start in range(0, max(1, len(rows)), _CHUNK):
        taken = cache.take(rows[start : start + _CHUNK])
        ids.append(taken["ids"].astype(np.int32))
        dense.append(taken["dense"])
        scenario.append(taken["scenario"].astype(np.int32))
        for name, bag in taken["bags"].items():
            bags[name].append(bag)
    return {
        "ids": np.concatenate(ids),
        "dense": np.concatenate(dense),
        "scenario": np.concatenate(scenario),
        "bags": {name: _joined(parts) for name, parts in bags.items()},
    }


def _joined(parts: list[Bag]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Several bags one behind the other."""
    lengths = np.concatenate([np.diff(part.splits) for part in parts])
    splits = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=splits[1:])
    weights = [part.weights for part in parts if part.weights is not None]
    return (
        np.concatenate([part.values for part in parts]),
        splits,
        np.concatenate(weights) if weights else None,
    )
