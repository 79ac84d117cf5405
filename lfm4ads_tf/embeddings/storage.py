"""Embedding tables and their optimizer slots as files, written and read slice by slice."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tensorflow as tf

from lfm4ads_tf.embeddings.fused_table import FusedTable
from lfm4ads_tf.embeddings.placement.segment_files import (
    file_dtype,
    from_file,
    open_rows,
    read_whole,
    to_file,
    write_header,
)
from lfm4ads_tf.embeddings.segments import read_stretches, workers_of, write_stretches
from lfm4ads_tf.embeddings.stored_rows import StoredRows, StoredSegment
from lfm4ads_tf.embeddings.table import SLICE_ROWS, ShardedEmbedding
from lfm4ads_tf.embeddings.table_config import TableConfig
from lfm4ads_tf.embeddings.table_index import TableIndex, damaged, write_index
from lfm4ads_tf.embeddings.table_shards import parts_of
from lfm4ads_tf.embeddings.table_slots import SlotRule, TableSlots
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.files import unwritable

_SLICE_BYTES = 1 << 23  # of float32; a slice in flight exists about five times
_WEIGHTS = "weights"


def write_tables(
    folder: Path, layer: ShardedEmbedding, optimizer: TableSlots | None = None
) -> None:
    """Writes the tables of a layer, and the slots of its trained tables, into a folder.

    There is one .npy file per table and per slot of a table, (stored_rows + 1, floats per row) in
    the order of the ids and in the table's storage, the missing id's row last; `tables.json`
    describes them and comes last. What the files hold depends neither on the shards nor on the
    physical tables. Memory grows by some slices, not by a table.

    A table that lies on the servers of a cluster is read and written by the workers, see
    `lfm4ads_tf.embeddings.placement.table_workers`. Where it has more rows than a stretch, there is
    one file for each stretch, `<name>.<n>-of-<m>.npy`, the missing id's row being the last of the
    last one.

    Args:
        folder: Where to write. It should be new: stage it, see `staged_folder`.
        layer: The layer to read.
        optimizer: Optimizer built with `layer`; None writes no slots.

    Raises:
        UserError: The folder cannot be written.
    """
    files: dict[str, dict[str, StoredRows]] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, config in enumerate(layer.layout.tables.values()):
            # the number tells apart what is alike once the name is fit for a file
            stem = f"{number:04d}_{re.sub(r'[^A-Za-z0-9.-]', '_', config.name)[:80]}"
            files[config.name] = {
                key: _write(folder / f"{stem}.{key}.npy", layer, config, variable)
                for key, variable in _variables(layer, optimizer, config).items()
            }
        rule = None if optimizer is None else _describe(optimizer.rule)
        write_index(folder, layer.manifest(), rule, files)
    except OSError as error:
        raise unwritable(folder, error) from error


def read_tables(
    folder: Path,
    layer: ShardedEmbedding,
    optimizer: TableSlots | None = None,
    *,
    strict: bool = True,
) -> tuple[str, ...]:
    """Reads what `write_tables` wrote, tables being matched by name.

    The layer may have other shards, other physical tables, another order of tables and another
    storage, to which the values are then rounded. A table may have more rows than were written:
    the new ids keep their values, as do the slots of a table that was frozen when it was written.
    Tables that the layer does not have are passed over. One machine reads what a cluster wrote,
    and the other way round.

    Args:
        folder: What `write_tables` wrote.
        layer: The layer to write.
        optimizer: Optimizer built with `layer`, whose slots are read too; None reads no slots.
        strict: Whether every table of the layer must be there; else the others keep their values.

    Returns:
        Names of the tables that were read.

    Raises:
        UserError: A file is missing or damaged, a table is missing or does not fit (another
            width, sets or hashing, or fewer rows in the layer), or the slots are of another rule.
            Nothing is written into the layer then, unless a file of the right size has the wrong
            content, which its checksum shows at its end.
    """
    index = TableIndex(folder)
    names = [name for name in layer.layout.tables if name in index.files]
    lacking = [name for name in layer.layout.tables if name not in index.files]
    if strict and lacking:
        raise UserError(
            f"The embedding table '{lacking[0]}' is not among those stored in '{folder}'.",
            received=f"tables {', '.join(index.files)}",
            fix="Use the features that the tables were written with, or read them with "
            "strict=False to let new tables keep their initial values.",
        )
    if optimizer is not None and index.rule != _describe(optimizer.rule):
        raise UserError(
            f"The optimizer slots stored in '{folder}' are not those of the optimizer.",
            received=f"{index.rule or 'no slots'}, expected {_describe(optimizer.rule)}",
            fix="Use the update rule that the tables were trained with, or read them without an "
            "optimizer to start its slots anew.",
        )
    plan: list[tuple[StoredRows, TableConfig, Any | None]] = []
    for name in names:
        config = layer.layout.table(name)
        _require_fit(index.tables[name], index.sets, config, layer.sets)
        for key, variable in _variables(layer, optimizer, config).items():
            if key in index.files[name]:
                plan.append((index.files[name][key], config, variable))
    for stored, _, _ in plan:
        for segment in stored.segments:
            _open(folder / segment.file, stored, segment).close()
    for stored, config, variable in plan:
        _read(folder, stored, layer, config, variable)
    return tuple(names)


def count_weights(folder: Path) -> int:
    """Weights in the tables that `write_tables` wrote, slots apart.

    Raises:
        UserError: The description of the tables is missing or damaged.
    """
    tables = [files[_WEIGHTS] for files in TableIndex(folder).files.values()]
    return sum(stored.rows * stored.width for stored in tables)


def _variables(
    layer: ShardedEmbedding, optimizer: TableSlots | None, config: TableConfig
) -> dict[str, Any | None]:
    """What is stored of a table: its weights (None, see `read_rows`), and its slots by name."""
    variables: dict[str, Any | None] = {_WEIGHTS: None}
    if optimizer is not None and config.trainable:
        home = layer.layout.home(config.name).name
        for slot in optimizer.rule.slots:
            variables[slot.name] = optimizer.slot(layer, home, slot.name)
    return variables


def _describe(rule: SlotRule) -> dict[str, Any]:
    """What makes the slots of two rules interchangeable; the rule's numbers may change."""
    return {"name": rule.name, "slots": {slot.name: slot.per_element for slot in rule.slots}}


def _require_fit(old: TableConfig, old_sets: int, new: TableConfig, new_sets: int) -> None:
    alike = (old.dim, old_sets, old.hashing) == (new.dim, new_sets, new.hashing)
    if not alike or new.stored_rows < old.stored_rows:
        raise UserError(
            f"The stored embedding table '{new.name}' does not fit.",
            received=f"stored rows={old.rows}, dim={old.dim}, sets={old_sets}, "
            f"hashing={old.hashing}; wanted rows={new.rows}, dim={new.dim}, sets={new_sets}, "
            f"hashing={new.hashing}",
            fix="Keep dim, sets and hashing and do not lower rows, or rename the table to start "
            "anew.",
        )


def _write(
    path: Path, layer: ShardedEmbedding, config: TableConfig, variable: Any | None
) -> StoredRows:
    """Writes a table or a slot of it; the file is `path`, or several beside it by the workers."""
    fused, parts = _home(layer, config, variable)
    # int8 rows are written as the numbers that they stand for
    plain = variable is not None or config.storage == "int8"
    storage = "float32" if plain else config.storage
    workers = workers_of(parts)
    if workers is not None:
        return write_stretches(workers, fused, parts, config, path, storage)
    rows = config.stored_rows + 1
    width = layer.read_rows(config.name, 0, 1, variable).shape[1]
    crc = 0
    # plain writes, since the pages of a memory map would count as memory
    with path.open("wb") as stream:
        write_header(stream, storage, rows, width)
        for start, stop in _slices(rows, width):
            block = to_file(layer.read_rows(config.name, start, stop, variable), storage)
            crc = zlib.crc32(block.data, crc)
            stream.write(block.data)
    return StoredRows(storage, width, (StoredSegment(path.name, rows, crc),))


def _read(
    folder: Path,
    stored: StoredRows,
    layer: ShardedEmbedding,
    config: TableConfig,
    variable: Any | None,
) -> None:
    """Reads files into a table, or into the slot `variable` of it."""
    fused, parts = _home(layer, config, variable)
    workers = workers_of(parts)
    if workers is not None:
        read_stretches(workers, fused, parts, config, folder, stored)
        return
    for first, segment in stored.placed():
        path = folder / segment.file
        crc = 0
        with _open(path, stored, segment) as stream:
            for start, stop in _slices(segment.rows, stored.width):
                block = np.empty((stop - start, stored.width), file_dtype(stored.storage))
                try:
                    read_whole(stream, block)
                except ValueError as error:
                    raise damaged(path, error) from error
                crc = zlib.crc32(block.data, crc)
                values = from_file(block, stored.storage)
                if first + stop == stored.rows:
                    # the missing id's row, which a grown table has further back
                    layer.write_rows(config.name, config.stored_rows, values[-1:], variable)
                    values = values[:-1]
                if len(values):
                    layer.write_rows(config.name, first + start, values, variable)
        if crc != segment.crc32:
            raise damaged(path, f"checksum {crc}, expected {segment.crc32}")


def _home(
    layer: ShardedEmbedding, config: TableConfig, variable: Any | None
) -> tuple[FusedTable, list[tf.Variable]]:
    """The physical table of a table, and the shards of it or of one of its slots."""
    fused = layer.layout.home(config.name)
    return fused, layer.parts(fused.name) if variable is None else parts_of(variable)


def _slices(rows: int, width: int) -> Iterator[tuple[int, int]]:
    """Row ranges of a size that memory need not count."""
    size = max(1, min(SLICE_ROWS, _SLICE_BYTES // (4 * width)))
    for start in range(0, rows, size):
        yield start, min(start + size, rows)


def _open(path: Path, stored: StoredRows, segment: StoredSegment) -> BinaryIO:
    """The file at its first element, when its header and size are those of `segment`."""
    try:
        return open_rows(path, stored.storage, segment.rows, stored.width)
    except OSError as error:
        raise damaged(path, error.strerror) from error
    except ValueError as error:
        raise damaged(path, error) from error
