"""What batches of rows are read from, in this process or in another one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from lfm4ads_tf.data.cache import EncodedCache, Refresh
from lfm4ads_tf.data.flat_batch import FlatForm, flatten

RepresentationJoin = Callable[[np.ndarray], Mapping[str, np.ndarray]]
"""Rows (B,) -> representation name -> (B, d + 1) float32, the last column flagging presence."""
SOURCE = "source"
"""Attribute of a data set: the `RowSource` that its batches are read from."""


@dataclass
class RowSource:
    """What batches are read from.

    Attributes:
        cache: The encoded cache.
        order: Number of a pass -> its rows in the order in which they are read, (M,).
        batch_size: Rows a batch; the last one of a pass may be smaller.
        start: First batch that is read.
        refresh: State of the moving features on valid and test rows.
        representations: Lookup of stored representations, None without transfer.
        ahead: Whether rows are places of rows ahead, see `EncodedCache.take_ahead`.
        weights: Factors of the losses of all N rows of the cache, (N,) or (N, T) float32; None
            weights none.
    """

    cache: EncodedCache
    order: Callable[[int], np.ndarray]
    batch_size: int
    start: int = 0
    refresh: Refresh = "frozen"
    representations: RepresentationJoin | None = None
    ahead: bool = False
    weights: np.ndarray | None = None

    def load(self, rows: np.ndarray) -> list[np.ndarray]:
        """The flat arrays of some rows (B,), in the order of `form`."""
        return [*self._flat(rows).values()]

    @cached_property
    def form(self) -> FlatForm:
        """The form of the arrays that `load` gives."""
        return FlatForm(self._flat(self.order(0)[:1]))

    def _flat(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        batch: dict[str, Any]
        if self.ahead:
            batch = self.cache.take_ahead(rows)
        else:
            batch = self.cache.take(rows, self.refresh)
        batch["representations"] = (
            {} if self.representations is None else self.representations(rows)
        )
        if self.weights is not None:
            batch["weights"] = self.weights[rows]
        return flatten(batch)


def source_of(data: tf.data.Dataset) -> RowSource:
    """The source of a data set that `batches` or `passes` made.

    Raises:
        ValueError: Something else made it.
    """
    source = vars(data).get(SOURCE)
    if not isinstance(source, RowSource):
        raise ValueError("These batches were not made by `lfm4ads_tf.data.input`.")
    return source
