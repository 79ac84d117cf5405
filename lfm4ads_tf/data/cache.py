"""The encoded cache: all rows of a data set as logical ids, on disk in columnar form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lfm4ads_tf.data.splits import AUXILIARY, SPLITS
from lfm4ads_tf.features.layout import FeatureLayout

Refresh = Literal["frozen", "daily"]

_COLUMNS = ("ids", "dense", "labels", "scenario", "user", "item", "time", "split", "period")


@dataclass(frozen=True)
class Bag:
    """A ragged column: flat values (M,) int32, row splits (N + 1,) int64, weights (M,) or None."""

    values: np.ndarray
    splits: np.ndarray
    weights: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> Bag:
        """The lists of some rows."""
        lengths = self.splits[rows + 1] - self.splits[rows]
        splits = np.concatenate([[0], np.cumsum(lengths)])
        positions = np.repeat(self.splits[rows] - splits[:-1], lengths) + np.arange(splits[-1])
        weights = None if self.weights is None else self.weights[positions]
        return Bag(self.values[positions], splits, weights)


class EncodedCache:
    """Reads an encoded cache; arrays are memory-mapped.

    Rows are in time order, auxiliary rows first. Two states of the features that move with the
    log are kept for valid and test rows: `frozen` (end of training) and `daily` (labels of
    earlier periods only); on training rows both are the state of the row's own period.

    Args:
        folder: What `write_cache` wrote.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))
        self.layout = FeatureLayout.from_json(self.manifest["layout"])
        self._arrays = {name: self._open(name) for name in _COLUMNS}
        self._moving_columns: list[int] = self.manifest["moving_columns"]
        self._moving = self._open("dense_daily") if self._moving_columns else None
        self._bags = {name: self._open_bag(name) for name in self.manifest["bags"]}
        self._moving_bags = {
            name: self._open_bag(f"{name}@daily") for name in self.manifest["moving_bags"]
        }

    @property
    def rows(self) -> int:
        """Number of rows, auxiliary ones included."""
        return len(self.split)

    @property
    def labels(self) -> np.ndarray:
        """(N, T) float32, NaN where unknown."""
        return self._arrays["labels"]

    @property
    def scenario(self) -> np.ndarray:
        """(N,) int32 index into the layout's scenarios, -1 unknown."""
        return self._arrays["scenario"]

    @property
    def user(self) -> np.ndarray:
        """(N,) int32 code of the user key, see `keys`."""
        return self._arrays["user"]

    @property
    def item(self) -> np.ndarray:
        """(N,) int32 code of the item key, see `keys`."""
        return self._arrays["item"]

    @property
    def time(self) -> np.ndarray:
        """(N,) float64 event time in seconds."""
        return self._arrays["time"]

    @property
    def split(self) -> np.ndarray:
        """(N,) int8, see `lfm4ads_tf.data.splits`."""
        return self._arrays["split"]

    @property
    def period(self) -> np.ndarray:
        """(N,) int32; -1 for auxiliary rows."""
        return self._arrays["period"]

    @cached_property
    def best_possible(self) -> np.ndarray | None:
        """(N, T) true probabilities of the labels, None where the data has none."""
        return self._open("best_possible") if self.manifest["best_possible"] else None

    @cached_property
    def train_rows(self) -> np.ndarray:
        """Training rows in time order, auxiliary rows excluded."""
        return np.flatnonzero(self.split == SPLITS["train"])

    @cached_property
    def auxiliary_rows(self) -> np.ndarray:
        """Auxiliary rows in order."""
        return np.flatnonzero(self.split == AUXILIARY)

    def keys(self, side: Literal["user", "item"]) -> pa.Array:
        """Raw keys by code."""
        table = pq.read_table(self.folder / f"{side}_keys.parquet")
        return table["key"].combine_chunks()

    def rows_of(self, split: str, scenario: str | None = None) -> np.ndarray:
        """Rows of a split (`train`, `valid`, `test`), of one scenario or of all, in time order."""
        chosen = self.split == SPLITS[split]
        if scenario is not None:
            chosen &= self.scenario == self.layout.scenarios.index(scenario)
        return np.flatnonzero(chosen)

    def take(self, rows: np.ndarray, refresh: Refresh = "frozen") -> dict[str, Any]:
        """Features and labels of some rows.

        Returns:
            `ids` (B, F) int64, `dense` (B, N) float32, `scenario` and `item` (B,) int64, `labels`
            (B, T) float32, `bags` name -> `Bag`.
        """
        dense = self._arrays["dense"][rows]
        if refresh == "daily" and self._moving is not None:
            dense[:, self._moving_columns] = self._moving[rows]
        moving = self._moving_bags if refresh == "daily" else {}
        return {
            "ids": self._arrays["ids"][rows].astype(np.int64),
            "dense": dense,
            "scenario": self.scenario[rows].astype(np.int64),
            "item": self.item[rows].astype(np.int64),
            "labels": self.labels[rows],
            "bags": {name: moving.get(name, bag).take(rows) for name, bag in self._bags.items()},
        }

    def _open(self, name: str) -> np.ndarray:
        return np.load(self.folder / f"{name}.npy", mmap_mode="r")

    def _open_bag(self, name: str) -> Bag:
        weighted = (self.folder / f"{name}.weights.npy").exists()
        return Bag(
            self._open(f"{name}.values"),
            self._open(f"{name}.splits"),
            self._open(f"{name}.weights") if weighted else None,
        )


@dataclass(frozen=True)
class CacheContent:
    """What `write_cache` writes; shapes as in `EncodedCache`.

    Attributes:
        columns: `ids`, `dense`, `labels`, `scenario`, `user`, `item`, `time`, `split`, `period`.
        bags: Ragged columns.
        moving_dense: Columns of `dense` that move daily -> their daily values (N, columns).
        moving_bags: Ragged columns that move daily.
        best_possible: (N, T) or None.
        keys: Raw user and item keys by code.
        manifest: Further entries of the manifest.
    """

    layout: FeatureLayout
    columns: Mapping[str, np.ndarray]
    bags: Mapping[str, Bag]
    moving_columns: list[int]
    moving_dense: np.ndarray | None
    moving_bags: Mapping[str, Bag]
    best_possible: np.ndarray | None
    keys: Mapping[str, pa.Array]
    manifest: Mapping[str, Any]


def write_cache(folder: Path, content: CacheContent) -> None:
    """Writes a cache into an existing, empty folder; the manifest comes last."""
    for name in _COLUMNS:
        np.save(folder / f"{name}.npy", content.columns[name])
    if content.moving_dense is not None:
        np.save(folder / "dense_daily.npy", content.moving_dense)
    if content.best_possible is not None:
        np.save(folder / "best_possible.npy", content.best_possible)
    moving = {f"{name}@daily": bag for name, bag in content.moving_bags.items()}
    for name, bag in {**content.bags, **moving}.items():
        np.save(folder / f"{name}.values.npy", bag.values)
        np.save(folder / f"{name}.splits.npy", bag.splits)
        if bag.weights is not None:
            np.save(folder / f"{name}.weights.npy", bag.weights)
    for side, keys in content.keys.items():
        pq.write_table(pa.table({"key": keys}), folder / f"{side}_keys.parquet")
    manifest = {
        **content.manifest,
        "layout": content.layout.to_json(),
        "moving_columns": content.moving_columns if content.moving_dense is not None else [],
        "bags": list(content.bags),
        "moving_bags": list(content.moving_bags),
        "best_possible": content.best_possible is not None,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1), "utf-8")
