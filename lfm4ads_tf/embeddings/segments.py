"""Tables made, saved and restored by the workers of a cluster, a stretch of rows at a time.

A stretch travels between a worker and the servers that hold its rows; the process that asks for it
sees checksums and messages alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from lfm4ads_tf.embeddings.checksums import joined_crc32
from lfm4ads_tf.embeddings.fused_table import FusedTable
from lfm4ads_tf.embeddings.initial import INIT_BLOCK, MISSING_BLOCK, block_seeds, drawn_blocks
from lfm4ads_tf.embeddings.placement.segment_files import (
    LEFTOVERS,
    file_dtype,
    open_rows,
    text_of,
)
from lfm4ads_tf.embeddings.placement.table_workers import TableWorkers, table_workers
from lfm4ads_tf.embeddings.quantize import QuantizedTable
from lfm4ads_tf.embeddings.stored_rows import StoredRows, StoredSegment
from lfm4ads_tf.embeddings.table_config import TableConfig
from lfm4ads_tf.embeddings.table_index import damaged
from lfm4ads_tf.embeddings.table_shards import (
    FLOAT16_OVERFLOW,
    read_shards,
    require_float16,
    shard_bounds,
)
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.files import unwritable

SEGMENT_ROWS = 1 << 18  # rows of a stretch, and of a file
SEGMENT_FLOATS = 1 << 24  # fewer rows where they are wide: a worker holds a stretch several times
PIECE_FLOATS = 1 << 19  # of a stretch, sent to servers at a time: they keep what a message took
_STRETCHES = "_stretches"  # attribute of a table's first shard: its functions, traced once

_INTEGER, _TEXT = tf.TensorSpec([], tf.int64), tf.TensorSpec([], tf.string)


def workers_of(parts: Sequence[Any]) -> TableWorkers | None:
    """The workers that handle a table.

    Args:
        parts: The shards of the table.

    Returns:
        None where this process does: on one machine, and for tables that no server holds.
    """
    workers = table_workers()
    if workers is None or isinstance(parts[0], QuantizedTable):
        return None
    return workers if all(workers.reach(part) for part in parts) else None


def fill_rows(
    workers: TableWorkers,
    fused: FusedTable,
    parts: Sequence[tf.Variable],
    config: TableConfig,
    init: str,
    seed: int,
) -> None:
    """Gives a table its initial values, those of `initial_blocks`.

    Args:
        workers: Who draws and writes them.
        fused, parts: The physical table.
        config: The logical table.
        init, seed: See `initial_blocks`.

    Raises:
        UserError: The storage cannot hold a value.
    """
    blocks = -(-config.stored_rows // INIT_BLOCK)
    step = max(1, _stretch_rows(parts) // INIT_BLOCK)
    offset, scale = fused.offsets[config.name], np.float32(config.init_scale)

    def arguments() -> Iterator[tuple[np.ndarray | np.generic, ...]]:
        for first in range(0, blocks, step):
            seeds = block_seeds(config.name, range(first, min(first + step, blocks)), seed)
            start = first * INIT_BLOCK
            count = min(len(seeds) * INIT_BLOCK, config.stored_rows - start)
            yield seeds, np.int64(offset + start), np.int64(count), scale
        seeds = block_seeds(config.name, [MISSING_BLOCK], seed)
        yield seeds, np.int64(offset + config.stored_rows), np.int64(1), scale

    function = _functions(workers, fused, parts).fill(init)
    _require_kept(too_large for (too_large,) in list(workers.run(function, arguments())))


def write_stretches(
    workers: TableWorkers,
    fused: FusedTable,
    parts: Sequence[tf.Variable],
    config: TableConfig,
    path: Path,
    storage: str,
) -> StoredRows:
    """Writes the rows of a table, or of a slot of it, a file for each stretch.

    Args:
        workers: Who reads the rows and writes the files.
        fused: The physical table.
        parts: Its shards, or those of the slot.
        config: The logical table.
        path: Path of the file when there is only one; else `.<n>-of-<m>` stands before its ending.
        storage: Type of the elements in the files.

    Raises:
        UserError: A file cannot be written, or is not seen here.
    """
    rows, width = config.stored_rows + 1, int(parts[0].shape[1])
    step = _stretch_rows(parts)
    starts = range(0, rows, step)
    names = [path.name]
    if len(starts) > 1:
        count = len(starts)
        names = [f"{path.stem}.{n:05d}-of-{count:05d}{path.suffix}" for n in range(count)]
    folder, offset = path.parent.resolve(), fused.offsets[config.name]
    stops = [min(start + step, rows) for start in starts]
    arguments = (
        (
            _text(folder / name),
            _text(storage),
            np.int64(offset + start),
            np.int64(offset + stop),
        )
        for name, start, stop in zip(names, starts, stops, strict=True)
    )
    results = list(workers.run(_functions(workers, fused, parts).save(), arguments))
    for name, (_, wrong) in zip(names, results, strict=True):
        if text_of(wrong):
            raise unwritable(path.parent / name, OSError(text_of(wrong)))
    segments = []
    for name, start, stop, (crc, _) in zip(names, starts, stops, results, strict=True):
        _require_seen(path.parent / name, storage, stop - start, width)
        segments.append(StoredSegment(name, stop - start, int(crc)))
    for leftover in path.parent.glob(LEFTOVERS):  # of workers that were lost while they wrote
        leftover.unlink(missing_ok=True)
    return StoredRows(storage, width, tuple(segments))


def read_stretches(
    workers: TableWorkers,
    fused: FusedTable,
    parts: Sequence[tf.Variable],
    config: TableConfig,
    folder: Path,
    stored: StoredRows,
) -> None:
    """Reads rows into a table, or into a slot of it, however they were cut into files.

    Args:
        workers: Who reads the files and writes the rows.
        fused, parts, config: See `write_stretches`. The table may have more rows than are stored.
        folder: Where the files are.
        stored: What is in them.

    Raises:
        UserError: A file is missing or damaged, or the storage cannot hold a value.
    """
    home, offset, step = folder.resolve(), fused.offsets[config.name], _stretch_rows(parts)
    pieces = [
        (segment, first, start, min(start + step, segment.rows))
        for first, segment in stored.placed()
        for start in range(0, segment.rows, step)
    ]
    arguments = (
        (
            _text(home / segment.file),
            _text(stored.storage),
            *(np.int64(number) for number in (segment.rows, stored.width, start, stop)),
            np.int64(offset + first + start),
            np.int64(offset + stored.rows - 1),
            np.int64(offset + config.stored_rows),
        )
        for segment, first, start, stop in pieces
    )
    results = list(workers.run(_functions(workers, fused, parts).restore(), arguments))
    row_bytes = stored.width * file_dtype(stored.storage).itemsize
    found: dict[str, int] = {}
    for (segment, _, start, stop), (crc, wrong, _) in zip(pieces, results, strict=True):
        if text_of(wrong):
            raise damaged(folder / segment.file, text_of(wrong))
        before = found.get(segment.file, 0)
        found[segment.file] = joined_crc32(before, int(crc), (stop - start) * row_bytes)
    for segment in stored.segments:
        if found[segment.file] != segment.crc32:
            raise damaged(
                folder / segment.file,
                f"checksum {found[segment.file]}, expected {segment.crc32}",
            )
    _require_kept(too_large for _, _, too_large in results)


class _Stretches:
    """The functions that workers run for one physical table or slot, each traced once.

    Args:
        workers: Who runs them.
        fused: The physical table.
        parts: Its shards, or those of a slot.
    """

    def __init__(
        self, workers: TableWorkers, fused: FusedTable, parts: Sequence[tf.Variable]
    ) -> None:
        self.workers = workers
        self._spread = fused.spread
        self._parts = list(parts)
        self._traced: dict[str, Any] = {}

    def fill(self, init: str) -> Any:
        """(seeds (N, 2), first row before the spread, rows, scale) -> the value too large."""

        def fill(seeds: Any, start: Any, count: Any, scale: Any) -> Any:
            values = drawn_blocks(seeds, self._parts[0].shape[1], init, scale)[:count]
            return (self._scatter(tf.range(start, start + count), values),)

        seeds, scale = tf.TensorSpec([None, 2], tf.int64), tf.TensorSpec([], tf.float32)
        return self._function(init, fill, [seeds, _INTEGER, _INTEGER, scale])

    def save(self) -> Any:
        """(file, storage, first row before the spread, row after the last) -> checksum, message."""

        def save(path: Any, storage: Any, start: Any, stop: Any) -> Any:
            rows = self._spread.forward_tensor(tf.range(start, stop))
            values: list[tf.Tensor] = []
            for piece in self._pieces(tf.size(rows)):
                with tf.control_dependencies(values[-1:]):  # one after the other
                    values.append(read_shards(self._parts, rows[piece]))
            return self.workers.call(
                "write_segment",
                [path, storage, tf.concat(values, axis=0)],
                [tf.int64, tf.string],
            )

        return self._function("save", save, [_TEXT, _TEXT, _INTEGER, _INTEGER])

    def restore(self) -> Any:
        """See `read_stretches` -> checksum, message, the value too large."""

        def restore(
            path: Any,
            storage: Any,
            rows: Any,
            width: Any,
            start: Any,
            stop: Any,
            first: Any,
            missing: Any,
            home: Any,
        ) -> Any:
            values, crc, wrong = self.workers.call(
                "read_segment",
                [path, storage, rows, width, start, stop],
                [tf.float32, tf.int64, tf.string],
            )
            values = tf.ensure_shape(values, [None, self._parts[0].shape[1]])
            logical = tf.range(first, first + tf.shape(values, tf.int64)[0])
            # the missing id's row, which a grown table has further back
            logical = tf.where(logical == missing, home, logical)
            return crc, wrong, self._scatter(logical, values)

        return self._function("restore", restore, [_TEXT, _TEXT, *[_INTEGER] * 7])

    def _scatter(self, logical: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        """Writes rows, each to the shard that holds it, and nothing else to it.

        Args:
            logical: Distinct rows before the spread, (N,) int64.
            values: (N, width) float32.

        Returns:
            The largest size of a finite value, where the storage can tell; nothing is written where
            it is too large for it.
        """
        physical = self._spread.forward_tensor(logical)
        largest, kept = tf.constant(0.0), tf.constant(True)
        if self._parts[0].dtype == tf.float16:
            sizes = tf.where(tf.math.is_finite(values), tf.abs(values), 0.0)
            largest = tf.maximum(tf.reduce_max(sizes), 0.0)  # of no value, it is -infinity
            kept = largest < FLOAT16_OVERFLOW
        bounds = shard_bounds(sum(part.shape[0] for part in self._parts), len(self._parts))
        written: list[tf.Operation] = []
        for piece in self._pieces(tf.size(physical)):
            with tf.control_dependencies(written):  # one after the other
                rows, new = tf.identity(physical[piece]), tf.identity(values[piece])
            written = []
            for part, (start, stop) in zip(self._parts, bounds, strict=True):
                mine = tf.where((rows >= start) & (rows < stop) & kept)[:, 0]
                own = tf.cast(tf.gather(new, mine), part.dtype)
                scattered = tf.raw_ops.ResourceScatterUpdate(
                    resource=part.handle, indices=tf.gather(rows, mine) - start, updates=own
                )
                written.append(scattered)
        return largest

    def _pieces(self, size: tf.Tensor) -> list[slice]:
        """Cuts the rows of a stretch, [0, size), into a few slices of about one length."""
        rows, width = sum(part.shape[0] for part in self._parts), int(self._parts[0].shape[1])
        count = -(-min(_stretch_rows(self._parts), rows) * width // PIECE_FLOATS)
        step = (size + count - 1) // count
        return [slice(k * step, (k + 1) * step) for k in range(count)]

    def _function(
        self, key: str, function: Callable[..., Any], signature: Sequence[tf.TensorSpec]
    ) -> Any:
        if key not in self._traced:
            self._traced[key] = tf.function(function, input_signature=signature, autograph=False)
        return self._traced[key]


def _functions(
    workers: TableWorkers, fused: FusedTable, parts: Sequence[tf.Variable]
) -> _Stretches:
    kept: _Stretches | None = vars(parts[0]).get(_STRETCHES)
    if kept is None or kept.workers is not workers:
        kept = vars(parts[0])[_STRETCHES] = _Stretches(workers, fused, parts)
    return kept


def _stretch_rows(parts: Sequence[tf.Variable]) -> int:
    return max(1, min(SEGMENT_ROWS, SEGMENT_FLOATS // int(parts[0].shape[1])))


def _require_kept(largest: Iterator[Any]) -> None:
    require_float16(np.array([*largest], np.float32))


def _require_seen(path: Path, storage: str, rows: int, width: int) -> None:
    """Refuses a file that a worker has written elsewhere."""
    try:
        open_rows(path, storage, rows, width).close()
    except (OSError, ValueError) as error:
        raise UserError(
            f"A worker wrote '{path}', but it is not there.",
            received=getattr(error, "strerror", None) or error,
            fix="choose an output folder that all nodes of the cluster share",
        ) from error


def _text(value: object) -> np.ndarray:
    return np.array(str(value).encode(), object)
