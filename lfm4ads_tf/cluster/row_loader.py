"""The host function by which a worker reads the rows of a closure."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np

from lfm4ads_tf.data.row_recipe import OpenJoin, RowRecipe
from lfm4ads_tf.data.row_source import RowSource

ROWS = "rows"
"""Its name among the host functions."""
_KEPT = 4  # sources that stay open


class RowLoader:
    """Reads rows of what recipes name; what was opened last stays open.

    Args:
        open_join: Makes stored representations from their recipe.
    """

    def __init__(self, open_join: OpenJoin) -> None:
        self._open_join = open_join
        self._sources: OrderedDict[bytes, RowSource] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, recipe: bytes, rows: np.ndarray) -> list[np.ndarray]:
        """The flat arrays of some rows.

        Args:
            recipe: A `RowRecipe` as JSON in UTF-8.
            rows: (B,) int64.

        Raises:
            UserError: What the recipe names is not there for this process, or damaged.
        """
        return self._source(recipe).load(rows)

    def _source(self, recipe: bytes) -> RowSource:
        with self._lock:
            source = self._sources.get(recipe)
            if source is None:
                source = RowRecipe.from_json(recipe.decode()).open(self._open_join)
                self._sources[recipe] = source
                if len(self._sources) > _KEPT:
                    self._sources.popitem(last=False)
            self._sources.move_to_end(recipe)
            return source
