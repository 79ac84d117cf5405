"""The encoded cache: all rows of a data set as logical ids, on disk in columnar form."""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lfm4ads_tf.data.splits import AUXILIARY, SPLITS
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.file_names import file_name

Refresh = Literal["frozen", "daily"]

FORMAT = 3
"""Number of the stored form; it changes with what is stored."""

_TAKEN = ("ids", "dense", "labels", "scenario", "branch", "item")
INDEX = ("labels", "scenario", "branch", "segments", "user", "item", "time", "split", "period")
"""Columns that are read as a whole: what the order of training and the results are made of."""
AHEAD = ("ahead_row", "ahead_period", "ahead_daily", "ahead_dense")
"""Columns of the rows ahead, see `lfm4ads_tf.data.ahead`."""


@dataclass(frozen=True)
class Bag:
    """A ragged column: flat values (M,) int32, row splits (N + 1,) int64, weights (M,) or None."""

    values: np.ndarray
    splits: np.ndarray
    weights: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> Bag:
        """The lists of some rows."""
        starts = np.take(self.splits, rows)
        return gather_lists(
            self.values, starts, np.take(self.splits, rows + 1) - starts, self.weights
        )

    def slice(self, rows: slice) -> Bag:
        """The lists of consecutive rows [start, stop), without a copy of the values."""
        splits = self.splits[rows.start : rows.stop + 1]
        values = slice(int(splits[0]), int(splits[-1]))
        weights = None if self.weights is None else self.weights[values]
        return Bag(self.values[values], splits - splits[0], weights)


def gather_lists(
    values: np.ndarray, starts: np.ndarray, lengths: np.ndarray, weights: np.ndarray | None
) -> Bag:
    """Lists that lie anywhere in flat values, side by side in a bag.

    Args:
        values: (M,), and `weights` of the same length or None.
        starts: Place of each list's first value, (B,) int64.
        lengths: Values of each list, (B,) int64.
    """
    splits = np.zeros(len(starts) + 1, np.int64)
    np.cumsum(lengths, out=splits[1:])
    positions = np.repeat(starts - splits[:-1], lengths)  # (values taken,)
    positions += np.arange(len(positions))
    return Bag(
        np.take(values, positions), splits, None if weights is None else np.take(weights, positions)
    )


def array_file(folder: Path, name: str) -> Path:
    """File of a stored array: of a column, or of a part of a bag such as `<feature>.values`."""
    return folder / f"{file_name(name)}.npy"


class EncodedCache:
    """Reads an encoded cache; arrays are memory-mapped.

    Rows are in time order, auxiliary rows first. Two states of the features that move with the
    log are kept for valid and test rows: `frozen` (end of training) and `daily` (labels of
    earlier periods only); on training rows both are the state of the row's own period.

    Args:
        folder: What `write_cache` wrote.

    Raises:
        UserError: Another version wrote it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: dict[str, Any] = json.loads(self._bytes("manifest.json"))
        if self.manifest.get("format") != FORMAT:
            raise UserError(
                f"The encoded data in '{folder}' were written by another version.",
                received=f"format {self.manifest.get('format', 1)}, not {FORMAT}",
                fix="encode them again: choose another --out, or delete that folder",
            )
        self.layout = FeatureLayout.from_json(self.manifest["layout"])
        self._moving_columns: list[int] = self.manifest["moving_columns"]
        self._opened: dict[str, np.ndarray] = {}
        self._maps: dict[str, np.memmap] = {}

    @property
    def rows(self) -> int:
        """Number of rows, auxiliary ones included."""
        return len(self.split)

    @property
    def labels(self) -> np.ndarray:
        """(N, T) float32, NaN where unknown."""
        return self.column("labels")

    @property
    def scenario(self) -> np.ndarray:
        """(N,) int32 index into the layout's scenarios, -1 unknown."""
        return self.column("scenario")

    @property
    def unseen_scenarios(self) -> list[str]:
        """Scenarios of the log without a training row; data of older versions do not know them."""
        unseen: list[str] = self.manifest.get("unseen_scenarios", [])
        return unseen

    @property
    def branch(self) -> np.ndarray:
        """(N,) int8: 1 for an ad, 0 for content."""
        return self.column("branch")

    @property
    def segments(self) -> np.ndarray:
        """(N, S) bool: whether a row is in each of the layout's segments."""
        return self.column("segments")

    @property
    def user(self) -> np.ndarray:
        """(N,) int32 code of the user key, see `keys`."""
        return self.column("user")

    @property
    def item(self) -> np.ndarray:
        """(N,) int32 code of the item key, see `keys`."""
        return self.column("item")

    @property
    def time(self) -> np.ndarray:
        """(N,) float64 event time in seconds."""
        return self.column("time")

    @property
    def split(self) -> np.ndarray:
        """(N,) int8, see `lfm4ads_tf.data.splits`."""
        return self.column("split")

    @property
    def period(self) -> np.ndarray:
        """(N,) int32; -1 for auxiliary rows."""
        return self.column("period")

    @cached_property
    def best_possible(self) -> np.ndarray | None:
        """(N, T) true probabilities of the labels, None where the data has none."""
        return self.column("best_possible") if self.manifest["best_possible"] else None

    @cached_property
    def train_rows(self) -> np.ndarray:
        """Training rows in time order, auxiliary rows excluded."""
        return np.flatnonzero(self.split == SPLITS["train"])

    @cached_property
    def first_period(self) -> int:
        """First period with training rows, auxiliary ones excluded."""
        return int(self.period[self.train_rows].min())

    @cached_property
    def auxiliary_rows(self) -> np.ndarray:
        """Auxiliary rows in order."""
        return np.flatnonzero(self.split == AUXILIARY)

    def keys(self, side: Literal["user", "item"]) -> pa.Array:
        """Raw keys by code."""
        table = pq.read_table(pa.BufferReader(self._bytes(f"{side}_keys.parquet")))
        return table["key"].combine_chunks()

    def rows_of(self, split: str, name: str | None = None) -> np.ndarray:
        """Rows of a split in time order.

        Args:
            split: `train`, `valid` or `test`.
            name: A scenario or a segment; all rows when absent.
        """
        chosen = self.split == SPLITS[split]
        if name in self.layout.segments:
            chosen &= self.segments[:, self.layout.segments.index(name)]
        elif name is not None:
            chosen &= self.scenario == self.layout.scenarios.index(name)
        return np.flatnonzero(chosen)

    def take(self, rows: np.ndarray, refresh: Refresh = "frozen") -> dict[str, Any]:
        """Features and labels of some rows.

        Returns:
            `ids` (B, F) int64, `dense` (B, N) float32, `scenario`, `branch` and `item` (B,) int64,
            `labels` (B, T) float32, `bags` name -> `Bag`.
        """
        places = self._locate(rows)

        def take(name: str) -> np.ndarray:
            return np.take(self._features[name], places, axis=0)

        dense = take("dense")
        if refresh == "daily" and self._moving_columns:
            dense[:, self._moving_columns] = take("dense_daily")
        moving = self.manifest["moving_bags"] if refresh == "daily" else []
        return {
            "ids": take("ids").astype(np.int64),
            "dense": dense,
            "scenario": take("scenario").astype(np.int64),
            "branch": take("branch").astype(np.int64),
            "item": take("item").astype(np.int64),
            "labels": take("labels"),
            "bags": {
                name: self._bags[f"{name}@daily" if name in moving else name].take(places)
                for name in self.manifest["bags"]
            },
        }

    def ahead(self, period: int, *, daily: bool = False) -> np.ndarray:
        """Places of the rows that stand for keys as of a period, for `take_ahead`.

        Args:
            period: The period.
            daily: The state of valid and test rows, see `AheadRows`.
        """
        of = (self.column("ahead_period") == period) & (self.column("ahead_daily") == daily)
        return np.flatnonzero(of)

    @property
    def ahead_row(self) -> np.ndarray:
        """(M,) int64: the row of each place that `ahead` gives."""
        return self.column("ahead_row")

    def take_ahead(self, places: np.ndarray) -> dict[str, Any]:
        """As `take` of their rows, users' and items' moving features as of the later period."""
        batch = self.take(self.ahead_row[places])
        batch["dense"][:, self.manifest["ahead_columns"]] = self.column("ahead_dense")[places]
        for name in self.manifest["ahead_bags"]:
            batch["bags"][name] = self.ahead_bag(name).take(places)
        return batch

    def ahead_bag(self, name: str) -> Bag:
        """A moving bag of the rows ahead, as of their periods."""
        return self._open_bag(f"{name}@ahead")

    def stored(self, rows: slice) -> tuple[dict[str, np.ndarray], dict[str, Bag]]:
        """What is stored of consecutive rows [start, stop), without a copy.

        Returns:
            The columns that `take` reads (R, ...), with `dense_daily` where numbers move, and the
            bags, those that move also as `<name>@daily`.
        """
        columns = {name: array[rows] for name, array in self._features.items()}
        return columns, {name: bag.slice(rows) for name, bag in self._bags.items()}

    def read_ahead(self, rows: slice) -> None:
        """Asks for consecutive rows [start, stop) that will be taken soon; returns at once."""
        if not hasattr(mmap, "MADV_WILLNEED"):  # pragma: no cover - depends on the system
            return
        for name in self._features:
            self._will_need(name, rows.start, rows.stop)
        for name, bag in self._bags.items():
            self._will_need(f"{name}.splits", rows.start, rows.stop + 1)
            first, last = int(bag.splits[rows.start]), int(bag.splits[rows.stop])
            for part in ("values", "weights"):
                if f"{name}.{part}" in self._maps:
                    self._will_need(f"{name}.{part}", first, last)

    def _will_need(self, name: str, start: int, stop: int) -> None:
        array = self._maps[name]
        of_row = array.strides[0]
        # The mapping begins at the page that holds the array's first byte.
        first = array.offset % mmap.ALLOCATIONGRANULARITY
        low = (first + start * of_row) // mmap.PAGESIZE * mmap.PAGESIZE
        high = first + stop * of_row
        if stop > start:
            array._mmap.madvise(  # type: ignore[attr-defined]
                mmap.MADV_WILLNEED, low, high - low
            )

    @cached_property
    def _features(self) -> Mapping[str, np.ndarray]:
        """The columns that `take` reads, rows as `_locate` says."""
        names = [*_TAKEN, "dense_daily"] if self._moving_columns else list(_TAKEN)
        return {name: self.column(name) for name in names}

    @cached_property
    def _bags(self) -> Mapping[str, Any]:
        """The bags, those that move also as `<name>@daily`."""
        moving = [f"{name}@daily" for name in self.manifest["moving_bags"]]
        return {name: self._open_bag(name) for name in (*self.manifest["bags"], *moving)}

    def _locate(self, rows: np.ndarray) -> np.ndarray:
        """Where `_features` and `_bags` hold some rows, (B,)."""
        return rows

    def column(self, name: str) -> np.ndarray:
        """A stored column as a whole, such as those of `INDEX` and `AHEAD`."""
        if name not in self._opened:
            self._opened[name] = self._open(name)
        return self._opened[name]

    def _bytes(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def _open(self, name: str) -> np.ndarray:
        self._maps[name] = np.load(array_file(self.folder, name), mmap_mode="r")
        # A plain view: indexing it is faster, and what it returns is no memmap.
        return np.asarray(self._maps[name])

    def _open_bag(self, name: str) -> Bag:
        weighted = array_file(self.folder, f"{name}.weights").exists()
        return Bag(
            self._open(f"{name}.values"),
            self._open(f"{name}.splits"),
            self._open(f"{name}.weights") if weighted else None,
        )


@dataclass(frozen=True)
class CacheContent:
    """What `write_cache` writes; shapes as in `EncodedCache`.

    Attributes:
        columns: `ids`, `dense`, and those of `INDEX` and `AHEAD`.
        bags: Ragged columns.
        moving_dense: Columns of `dense` that move daily -> their daily values (N, columns).
        moving_bags: Ragged columns that move daily.
        best_possible: (N, T) or None.
        ahead_columns: Columns of `dense` that `ahead_dense` (M, columns) holds.
        ahead_bags: Ragged columns of the rows ahead.
        keys: Raw user and item keys by code.
        manifest: Further entries of the manifest.
    """

    layout: FeatureLayout
    columns: Mapping[str, np.ndarray]
    bags: Mapping[str, Bag]
    moving_columns: list[int]
    moving_dense: np.ndarray | None
    moving_bags: Mapping[str, Bag]
    ahead_columns: list[int]
    ahead_bags: Mapping[str, Bag]
    best_possible: np.ndarray | None
    keys: Mapping[str, pa.Array]
    manifest: Mapping[str, Any]


def write_cache(folder: Path, content: CacheContent) -> None:
    """Writes a cache into an existing, empty folder; the manifest comes last."""
    for name in ("ids", "dense", *INDEX, *AHEAD):
        np.save(array_file(folder, name), content.columns[name])
    if content.moving_dense is not None:
        np.save(folder / "dense_daily.npy", content.moving_dense)
    if content.best_possible is not None:
        np.save(folder / "best_possible.npy", content.best_possible)
    moving = {f"{name}@daily": bag for name, bag in content.moving_bags.items()}
    ahead = {f"{name}@ahead": bag for name, bag in content.ahead_bags.items()}
    for name, bag in {**content.bags, **moving, **ahead}.items():
        np.save(array_file(folder, f"{name}.values"), bag.values)
        np.save(array_file(folder, f"{name}.splits"), bag.splits)
        if bag.weights is not None:
            np.save(array_file(folder, f"{name}.weights"), bag.weights)
    for side, keys in content.keys.items():
        pq.write_table(pa.table({"key": keys}), folder / f"{side}_keys.parquet")
    manifest = {
        **content.manifest,
        "format": FORMAT,
        "layout": content.layout.to_json(),
        "moving_columns": content.moving_columns if content.moving_dense is not None else [],
        "bags": list(content.bags),
        "moving_bags": list(content.moving_bags),
        "ahead_columns": content.ahead_columns,
        "ahead_bags": list(content.ahead_bags),
        "best_possible": content.best_possible is not None,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1), "utf-8")
