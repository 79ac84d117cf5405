"""Encoded rows as a table of numbers, one column per thing that a tree may split on."""

from __future__ import annotations

import numpy as np

from lfm4ads_tf.data.cache import Bag, EncodedCache, Refresh
from lfm4ads_tf.features.layout import IdField

COMMON = 32
"""Values of a multi-valued feature with a column of their own: the commonest in training rows."""
_BLOCK = 65_536


class TreeTable:
    """What the upstream reads of a row, as numbers.

    One column per single-valued feature (its id, NaN where missing), per number of a dense
    feature, and for the scenario; for a multi-valued feature or sequence the number of its values,
    the weight (without weights the count) of each of its `COMMON` commonest values in training
    rows, and, for every single-valued feature that shares its table, how often the row's own value
    is in it.

    Args:
        cache: The encoded cache.
        branches: Whether the upstream is told ads from content.

    Attributes:
        names: Names of the columns.
        ids: Places of the columns that hold ids, not quantities.
    """

    def __init__(self, cache: EncodedCache, *, branches: bool = False) -> None:
        self._cache, self._branches = cache, branches
        layout = cache.layout
        self._common = {bag.name: self._commonest(bag) for bag in layout.bags}
        self._shared = {
            bag.name: [k for k, field in enumerate(layout.single) if field.table == bag.table]
            for bag in layout.bags
        }
        self.names: list[str] = [field.name for field in layout.single]
        self.names += ["scenario"] + (["branch"] if branches else [])
        self.ids = list(range(len(self.names)))
        for field in layout.dense:
            self.names += [f"{field.name}[{k}]" for k in range(field.width)]
        for bag in layout.bags:
            self.names.append(f"{bag.name} count")
            self.names += [f"{bag.name} has {value}" for value in self._common[bag.name]]
            own = [layout.single[k].name for k in self._shared[bag.name]]
            self.names += [f"{bag.name} has {name}" for name in own]

    def take(self, rows: np.ndarray, refresh: Refresh = "frozen") -> np.ndarray:
        """The values of some rows in ascending order, (R, C) float32."""
        table = np.empty((len(rows), len(self.names)), np.float32)
        for start in range(0, len(rows), _BLOCK):
            block = slice(start, start + _BLOCK)
            self._fill(table[block], rows[block], refresh)
        return table

    def _fill(self, table: np.ndarray, rows: np.ndarray, refresh: Refresh) -> None:
        batch = self._cache.take(rows, refresh)
        ids = batch["ids"].astype(np.float32)
        ids[batch["ids"] < 0] = np.nan
        columns = [ids, batch["scenario"][:, np.newaxis]]
        if self._branches:
            columns.append(batch["branch"][:, np.newaxis])
        columns.append(batch["dense"])
        for field in self._cache.layout.bags:
            columns += self._of_bag(field, batch["bags"][field.name], batch["ids"])
        start = 0
        for column in columns:
            table[:, start : start + column.shape[1]] = column
            start += column.shape[1]

    def _of_bag(self, field: IdField, bag: Bag, ids: np.ndarray) -> list[np.ndarray]:
        """Number of values, weights of the commonest ones, and counts of the row's own."""
        rows = len(ids)
        lengths = np.diff(bag.splits)
        row = np.repeat(np.arange(rows), lengths)
        common = self._common[field.name]
        columns = [lengths[:, np.newaxis]]
        if len(common):
            place = np.minimum(np.searchsorted(common, bag.values), len(common) - 1)
            held = common[place] == bag.values
            weights = None if bag.weights is None else bag.weights[held]
            slot = row[held] * len(common) + place[held]
            counts = np.bincount(slot, weights, minlength=rows * len(common))
            columns.append(counts.reshape(rows, len(common)))
        for k in self._shared[field.name]:
            is_id_of_row = bag.values == ids[row, k]
            columns.append(np.bincount(row[is_id_of_row], minlength=rows)[:, np.newaxis])
        return columns

    def _commonest(self, field: IdField) -> np.ndarray:
        """The commonest values of a bag in training rows, in ascending order."""
        counts = np.zeros(0, np.int64)
        train = self._cache.train_rows
        for start in range(0, len(train), _BLOCK):
            values = self._cache.take(train[start : start + _BLOCK])["bags"][field.name].values
            more = np.bincount(values, minlength=len(counts))
            more[: len(counts)] += counts
            counts = more
        chosen = np.argsort(-counts, kind="stable")[:COMMON]
        return np.sort(chosen[counts[chosen] > 0])
