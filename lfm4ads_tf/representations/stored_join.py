"""The join of stored representations to rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class StoredJoin:
    """Joins stored representations to rows of a cache.

    Attributes:
        tables: Name of a representation -> rows (B,) -> (B, d + 1) float32, the last column
            flagging presence.
        recipe: Plain values from which `store.open_join` makes it again in another process.
    """

    tables: Mapping[str, Callable[[np.ndarray], np.ndarray]]
    recipe: Mapping[str, Any]

    def __call__(self, rows: np.ndarray) -> Mapping[str, np.ndarray]:
        """Name -> (B, d + 1) of rows (B,)."""
        return {name: table(rows) for name, table in self.tables.items()}
