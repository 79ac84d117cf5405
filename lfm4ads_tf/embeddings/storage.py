"""Embedding tables and their optimizer slots as files, written and read slice by slice."""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tensorflow as tf

from lfm4ads_tf.embeddings.table import SLICE_ROWS, ShardedEmbedding
from lfm4ads_tf.embeddings.table_config import TableConfig
from lfm4ads_tf.embeddings.table_slots import SlotRule, TableSlots
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.files import unwritable, write_json

INDEX = "tables.json"
_SLICE_BYTES = 1 << 23  # of float32; a slice in flight exists about five times
_WEIGHTS = "weights"


@dataclass(frozen=True)
class _Stored:
    """One file: the rows of a table, or of one of its slots, in the order of the ids.

    Attributes:
        file: Name of the file.
        storage: Type of the elements; bfloat16 is kept as its bits, in uint16.
        rows: Rows, the missing id's included, which is the last one.
        width: Elements per row.
        crc32: Checksum of the elements.
    """

    file: str
    storage: str
    rows: int
    width: int
    crc32: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements in memory."""
        return np.dtype(tf.as_dtype(self.storage).as_numpy_dtype)

    @property
    def file_dtype(self) -> np.dtype[Any]:
        """Type of the elements in the file: one that the .npy format has."""
        return np.dtype("<u2") if self.storage == "bfloat16" else self.dtype.newbyteorder("<")

    def slices(self) -> Iterator[tuple[int, int]]:
        """Row ranges of a size that memory need not count."""
        size = max(1, min(SLICE_ROWS, _SLICE_BYTES // (4 * self.width)))
        for start in range(0, self.rows, size):
            yield start, min(start + size, self.rows)


def write_tables(
    folder: Path, layer: ShardedEmbedding, optimizer: TableSlots | None = None
) -> None:
    """Writes the tables of a layer, and the slots of its trained tables, into a folder.

    There is one .npy file per table and per slot of a table, (stored_rows + 1, floats per row) in
    the order of the ids and in the table's storage, the missing id's row last; `tables.json`
    describes them and comes last. What the files hold depends neither on the shards nor on the
    physical tables. Memory grows by some slices, not by a table.

    Args:
        folder: Where to write. It should be new: stage it, see `staged_folder`.
        layer: The layer to read.
        optimizer: Optimizer built with `layer`; None writes no slots.

    Raises:
        UserError: The folder cannot be written.
    """
    entries: dict[str, dict[str, Any]] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, config in enumerate(layer.layout.tables.values()):
            # the number tells apart what is alike once the name is fit for a file
            stem = f"{number:04d}_{re.sub(r'[^A-Za-z0-9.-]', '_', config.name)[:80]}"
            variables = _variables(layer, optimizer, config)
            entries[config.name] = {
                key: asdict(_write(folder, f"{stem}.{key}.npy", layer, config, variable))
                for key, variable in variables.items()
            }
        rule = None if optimizer is None else _describe(optimizer.rule)
        write_json(folder / INDEX, {"layer": layer.manifest(), "rule": rule, "files": entries})
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
    Tables that the layer does not have are passed over.

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
    index = _Index(folder)
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
    plan: list[tuple[_Stored, TableConfig, Any | None]] = []
    for name in names:
        config = layer.layout.table(name)
        _require_fit(index.tables[name], index.sets, config, layer.sets)
        for key, variable in _variables(layer, optimizer, config).items():
            if key in index.files[name]:
                plan.append((index.files[name][key], config, variable))
    for stored, _, _ in plan:
        _open(folder / stored.file, stored).close()
    for stored, config, variable in plan:
        _read(folder / stored.file, stored, layer, config, variable)
    return tuple(names)


def count_weights(folder: Path) -> int:
    """Weights in the tables that `write_tables` wrote, slots apart.

    Raises:
        UserError: The description of the tables is missing or damaged.
    """
    tables = [files[_WEIGHTS] for files in _Index(folder).files.values()]
    return sum(stored.rows * stored.width for stored in tables)


class _Index:
    """The content of `tables.json`.

    Attributes:
        files: Table -> "weights" or name of the slot -> its file.
        tables: Table -> its configuration.
        sets: Sets of the layer.
        rule: What `_describe` says of the rule, None without slots.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / INDEX
        known = {field.name for field in fields(TableConfig)}
        try:
            index = json.loads(path.read_text("utf-8"))
            self.files = {
                name: {key: _Stored(**stored) for key, stored in files.items()}
                for name, files in index["files"].items()
            }
            self.tables = {
                name: TableConfig.from_json({k: v for k, v in table.items() if k in known})
                for name, table in index["layer"]["tables"].items()
            }
            self.sets = int(index["layer"]["sets"])
            self.rule: dict[str, Any] | None = index["rule"]
        except FileNotFoundError as error:
            raise UserError(f"There are no embedding tables in '{folder}'.") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _damaged(path, error) from error
        if self.files.keys() != self.tables.keys():
            raise _damaged(path, "a table without file, or a file without table")


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
    folder: Path, file: str, layer: ShardedEmbedding, config: TableConfig, variable: Any | None
) -> _Stored:
    """Writes one file; plain writes, since the pages of a memory map would count as memory."""
    rows = config.stored_rows + 1
    width = layer.read_rows(config.name, 0, 1, variable).shape[1]
    # int8 rows are written as the numbers that they stand for
    plain = variable is not None or config.storage == "int8"
    storage = "float32" if plain else config.storage
    stored = _Stored(file, storage, rows, width, 0)
    crc = 0
    with (folder / file).open("wb") as stream:
        header = {"descr": stored.file_dtype.str, "fortran_order": False, "shape": (rows, width)}
        np.lib.format.write_array_header_1_0(stream, header)
        for start, stop in stored.slices():
            values = layer.read_rows(config.name, start, stop, variable)
            # exact: the values come from this type
            block = values.astype(stored.dtype, copy=False).view(stored.file_dtype)
            crc = zlib.crc32(block.data, crc)
            stream.write(block.data)
    return _Stored(file, storage, rows, width, crc)


def _read(
    path: Path, stored: _Stored, layer: ShardedEmbedding, config: TableConfig, variable: Any | None
) -> None:
    """Reads one file into the table, or into the slot `variable` of it."""
    crc = 0
    with _open(path, stored) as stream:
        for start, stop in stored.slices():
            block = np.empty((stop - start, stored.width), stored.file_dtype)
            if stream.readinto(block.data) != block.nbytes:  # type: ignore[attr-defined]
                raise _damaged(path, "the file ends too early")
            crc = zlib.crc32(block.data, crc)
            values = block.view(stored.dtype).astype(np.float32, copy=False)
            if stop == stored.rows:  # the missing id's row, which a grown table has further back
                layer.write_rows(config.name, config.stored_rows, values[-1:], variable)
                values = values[:-1]
            if len(values):
                layer.write_rows(config.name, start, values, variable)
    if crc != stored.crc32:
        raise _damaged(path, f"checksum {crc}, expected {stored.crc32}")


def _open(path: Path, stored: _Stored) -> BinaryIO:
    """The file at its first element, when its header and size are those of `stored`."""
    try:
        stream = path.open("rb")
    except OSError as error:
        raise _damaged(path, error.strerror) from error
    try:
        np.lib.format.read_magic(stream)
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        expected = (stored.rows, stored.width), False, stored.file_dtype
        if (shape, fortran, dtype) != expected:
            raise ValueError(f"shape {shape} of {dtype}, expected {expected[0]} of {expected[2]}")
        size = os.fstat(stream.fileno()).st_size
        whole = stream.tell() + stored.rows * stored.width * stored.file_dtype.itemsize
        if size != whole:
            raise ValueError(f"{size:,} bytes, expected {whole:,}")
    except (OSError, ValueError) as error:
        stream.close()
        raise _damaged(path, error) from error
    return stream


def _damaged(path: Path, reason: object) -> UserError:
    return UserError(
        f"'{path}' is missing or damaged.",
        received=reason,
        fix="Restore the file from a copy, or remove its folder and train again.",
    )
