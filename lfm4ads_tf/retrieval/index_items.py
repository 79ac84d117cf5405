"""What an index of items is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class IndexItems:
    """The items of a retrieval model, and what an index may be tuned by.

    Attributes:
        keys: UTF-8 bytes, (N,).
        vectors: (N, d) float32.
        k: Items returned per query.
        queries: Gives the vectors of users of the training rows, (Q, d) float32.
        seed: Seed of what is drawn.
        folder: The model's folder, where an index may keep a file of its own.
        refreshed: Whether the items are those of a model that was trained before some of them
            came, so that what lies in the folder still fits.
    """

    keys: np.ndarray
    vectors: np.ndarray
    k: int
    queries: Callable[[], np.ndarray]
    seed: int
    folder: Path
    refreshed: bool
