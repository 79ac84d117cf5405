"""Weights of a log's rows in the losses."""

from __future__ import annotations

import numpy as np

from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.errors import UserError


def checked_weights(weights: np.ndarray, cache: EncodedCache) -> np.ndarray:
    """Row weights as float32.

    Args:
        weights: Factors of the losses of the cache's N rows, (N,) or (N, T).
        cache: The encoded cache.

    Raises:
        UserError: They do not fit the cache, or are negative or not finite.
    """
    weights, (rows, tasks) = np.asarray(weights), cache.labels.shape
    if weights.shape not in ((rows,), (rows, tasks)):
        raise UserError(
            "Row weights need one value per row of the cache, or one per row and task.",
            received=f"shape {weights.shape}, expected ({rows},) or ({rows}, {tasks})",
        )
    converted = weights.astype(np.float32)
    if not (np.isfinite(converted) & (converted >= 0)).all():
        raise UserError(
            "Row weights must be finite and not negative.",
            received=f"from {converted.min()} to {converted.max()}",
        )
    return converted
