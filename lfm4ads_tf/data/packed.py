"""The encoded cache in packed form: blocks of rows in TFRecord files, here or far away."""

from __future__ import annotations

import io
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from lfm4ads_tf.data.block_format import BagFormat, BlockFormat
from lfm4ads_tf.data.cache import Bag, EncodedCache, Refresh, gather_lists
from lfm4ads_tf.data.pack import VERSION
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.file_names import file_name


class PackedCache(EncodedCache):
    """An encoded cache whose features lie in TFRecord blocks, written by `pack`.

    Takes the place of an `EncodedCache` anywhere, batch for batch the same: rows are taken from
    blocks that are held in memory, the least recently used of which make room for others. With
    `training.shuffle_window` the order stays inside stretches of consecutive rows, so every block
    is read about once an epoch, in long ranges from all files at once, ahead of its use. Labels,
    keys, split and period of all rows are read when they are first asked for.

    Args:
        folder: Folder or address (anything that `tf.io.gfile` reads).
        memory_bytes: Bound of the blocks that are held, and again of those that are being read;
            memory is taken as blocks come in.
        readers: Ranges that are read at a time.

    Raises:
        UserError: There is no packed cache, it was written by another version, or a file is
            missing or truncated.
    """

    def __init__(
        self, folder: str | Path, *, memory_bytes: int = 1 << 30, readers: int = 8
    ) -> None:
        self.place = str(folder)
        super().__init__(Path(folder))
        packed = self.manifest.get("packed")
        if packed is None or packed["version"] != VERSION:
            raise UserError(
                f"'{self.place}' holds no packed cache of this version.",
                received="an encoded cache"
                if packed is None
                else f"version {packed['version']}, not {VERSION}",
                fix="write it with `python -m lfm4ads_tf.data.pack CACHE OUT`",
            )
        self._format = BlockFormat.from_json(packed["format"])
        self._rows: int = packed["rows"]
        self._files: list[str] = [f["name"] for f in packed["files"]]
        for file in packed["files"]:
            self._check_size(file["name"], file["bytes"])
        # (blocks, 4): file, first byte, bytes, CRC-32
        self._blocks = self.column("blocks")
        block_bytes = sum(c.row_bytes for c in self._format.columns) * self._format.rows
        block_bytes += sum(16 * self._format.rows + 8 * b.most for b in self._format.bags)
        self._slots = max(1, min(len(self._blocks), memory_bytes // max(block_bytes, 1)))
        self._slot_of = np.full(len(self._blocks), -1, np.int64)
        self._held: OrderedDict[int, int] = OrderedDict()  # block -> slot, least recent first
        self._coming: dict[int, Future[dict[int, bytes]]] = {}
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="packed_cache")
        self._lock = threading.Lock()

    @property
    def rows(self) -> int:
        """Number of rows, auxiliary ones included."""
        return self._rows

    def take(self, rows: np.ndarray, refresh: Refresh = "frozen") -> dict[str, Any]:
        """See `EncodedCache.take`.

        Raises:
            UserError: A file is damaged, or the rows lie in more blocks than memory may hold.
        """
        with self._lock:
            return super().take(rows, refresh)

    def stored(self, rows: slice) -> tuple[dict[str, np.ndarray], dict[str, Bag]]:
        """See `EncodedCache.stored`; the rows are copied."""
        with self._lock:
            places = self._locate(np.arange(rows.start, rows.stop))
            columns = {name: array[places] for name, array in self._features.items()}
            return columns, {name: bag.take(places) for name, bag in self._bags.items()}

    def read_ahead(self, rows: slice) -> None:
        """Starts to read the blocks of consecutive rows [start, stop)."""
        first, last = rows.start // self._format.rows, -(-rows.stop // self._format.rows)
        with self._lock:
            # Blocks in use must find room beside those that come in.
            self._request(range(first, min(last, first + (self._slots + 1) // 2)))
            while len(self._coming) > self._slots:  # asked for and never taken
                del self._coming[next(iter(self._coming))]

    def _locate(self, rows: np.ndarray) -> np.ndarray:
        """Brings the blocks of some rows into memory; returns the rows' places there, (B,)."""
        block, inside = np.divmod(rows, self._format.rows)
        needed = np.unique(block)
        if len(needed) > self._slots:
            raise UserError(
                "The rows of one batch lie in more blocks of the packed cache than memory holds.",
                received=f"{len(needed)} blocks of {self._format.rows} rows, room for "
                f"{self._slots}",
                fix="set `training.shuffle_window` to at most "
                f"{max(self._slots // 3, 1) * self._format.rows}, or give the packed cache more "
                "memory",
            )
        missing = []
        for b in needed.tolist():
            if b in self._held:
                self._held.move_to_end(b)
            else:
                missing.append(b)
        self._request(missing)
        for b in missing:
            self._hold(b, self._coming.pop(b).result()[b])
        return self._slot_of[block] * self._format.rows + inside

    def _request(self, blocks: Iterable[int]) -> None:
        """Starts to read blocks that are neither held nor coming, one range per run of a file."""
        wanted = [b for b in blocks if b not in self._held and b not in self._coming]
        runs: dict[int, list[list[int]]] = {}
        for b in wanted:
            of_file = runs.setdefault(int(self._blocks[b, 0]), [])
            if of_file and b - of_file[-1][-1] == len(self._files):
                of_file[-1].append(b)
            else:
                of_file.append([b])
        for of_file in runs.values():
            for run in of_file:
                future = self._readers.submit(self._read, run)
                self._coming.update(dict.fromkeys(run, future))

    def _read(self, run: list[int]) -> dict[int, bytes]:
        """Neighbouring blocks of one file, checked."""
        name = self._files[int(self._blocks[run[0], 0])]
        start = int(self._blocks[run[0], 1])
        stop = int(self._blocks[run[-1], 1] + self._blocks[run[-1], 2])
        try:
            with tf.io.gfile.GFile(f"{self.place}/{name}", "rb") as stream:
                stream.seek(start)
                data = stream.read(stop - start)
        except tf.errors.OpError as error:
            raise self._damaged(name, error.message) from error
        blocks = {}
        for b in run:
            _, offset, length, checksum = self._blocks[b].tolist()
            blocks[b] = data[offset - start : offset - start + length]
            if zlib.crc32(blocks[b]) != checksum:
                raise self._damaged(name, f"wrong checksum of the record at byte {offset}")
        return blocks

    def _hold(self, block: int, data: bytes) -> None:
        """Decodes a block into a slot."""
        if len(self._held) < self._slots:
            slot = len(self._held)
        else:
            oldest, slot = self._held.popitem(last=False)
            self._slot_of[oldest] = -1
        rows = min(self._format.rows, self._rows - block * self._format.rows)
        columns, bags = self._format.decode(data, rows)
        start = slot * self._format.rows
        for name, values in columns.items():
            self._features[name][start : start + rows] = values
        for name, bag in bags.items():
            self._bags[name].put(slot, bag)
        self._held[block] = slot
        self._slot_of[block] = slot

    @cached_property
    def _features(self) -> Mapping[str, np.ndarray]:
        """Column -> rows of all slots; memory is taken where blocks are written."""
        rows = self._slots * self._format.rows
        return {c.name: np.empty((rows, *c.shape), c.dtype) for c in self._format.columns}

    @cached_property
    def _bags(self) -> Mapping[str, Any]:
        """Bag -> lists of all slots."""
        return {of.name: _HeldBag(of, self._slots, self._format.rows) for of in self._format.bags}

    def _bytes(self, name: str) -> bytes:
        try:
            with tf.io.gfile.GFile(f"{self.place}/{name}", "rb") as stream:
                return bytes(stream.read())
        except tf.errors.OpError as error:
            if name != "manifest.json":
                raise self._damaged(name, error.message) from error
            raise UserError(
                f"'{self.place}' holds no packed cache.",
                received="no manifest.json",
                fix="write it with `python -m lfm4ads_tf.data.pack CACHE OUT`",
            ) from error

    def _open(self, name: str) -> np.ndarray:
        try:
            return np.asarray(np.load(io.BytesIO(self._bytes(f"{file_name(name)}.npy"))))
        except (ValueError, EOFError) as error:
            raise self._damaged(f"{file_name(name)}.npy", error) from error

    def _check_size(self, name: str, expected: int) -> None:
        try:
            found = tf.io.gfile.stat(f"{self.place}/{name}").length
        except tf.errors.OpError as error:
            raise self._damaged(name, error.message) from error
        if found != expected:
            raise self._damaged(name, f"{found} bytes instead of {expected}")

    def _damaged(self, name: str, received: object) -> UserError:
        return UserError(
            f"File '{self.place}/{name}' of the packed cache is damaged or missing.",
            received=received,
            fix="copy it again from where it was written, or write the packed cache again with "
            "`python -m lfm4ads_tf.data.pack CACHE OUT`",
        )


class _HeldBag:
    """The lists of all slots, each slot with room for the block that has the most values."""

    def __init__(self, of: BagFormat, slots: int, rows: int) -> None:
        self._most, self._rows = of.most, rows
        self._values = np.empty(slots * of.most, np.int32)
        self._weights = np.empty(slots * of.most, np.float32) if of.weighted else None
        self._starts = np.empty(slots * rows, np.int64)
        self._lengths = np.empty(slots * rows, np.int64)

    def put(self, slot: int, bag: Bag) -> None:
        """Fills a slot with the lists of a block."""
        first, row = slot * self._most, slot * self._rows
        rows = slice(row, row + len(bag.splits) - 1)
        self._starts[rows] = bag.splits[:-1] + first
        self._lengths[rows] = np.diff(bag.splits)
        self._values[first : first + len(bag.values)] = bag.values
        if self._weights is not None:
            self._weights[first : first + len(bag.values)] = bag.weights

    def take(self, places: np.ndarray) -> Bag:
        """The lists at some places."""
        starts, lengths = np.take(self._starts, places), np.take(self._lengths, places)
        return gather_lists(self._values, starts, lengths, self._weights)
