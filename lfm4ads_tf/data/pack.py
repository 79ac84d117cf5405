"""Writes the packed form of an encoded cache: TFRecord files for remote storage.

    python -m lfm4ads_tf.data.pack CACHE OUT [--block-rows 1024] [--files 8]

CACHE is the `data` folder of a run, OUT a new folder or any address that `tf.io.gfile` writes to.
One record holds a block of consecutive rows (`lfm4ads_tf.data.block_format`), and block b lies in
file b mod files, so that neighbouring rows are read from all files at once. `PackedCache` reads it.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from lfm4ads_tf.data.block_format import BagFormat, BlockFormat, ColumnFormat
from lfm4ads_tf.data.cache import AHEAD, INDEX, EncodedCache
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.file_names import file_name
from lfm4ads_tf.files import unwritable

VERSION = 2
RECORD_HEAD = 12  # bytes of a TFRecord before its data: its length and the checksum of that
_RECORD_TAIL = 4  # the checksum of the data
_SIDES: tuple[Literal["user", "item"], ...] = ("user", "item")


def pack(cache: EncodedCache, out: str | Path, block_rows: int = 1024, files: int = 8) -> None:
    """Writes all rows of a cache in packed form; the manifest comes last.

    Args:
        cache: The encoded cache.
        out: A folder that does not exist or is empty.
        block_rows: Rows of a record.
        files: TFRecord files.

    Raises:
        UserError: The folder is not empty or cannot be written, or a number is below 1.
    """
    if block_rows < 1 or files < 1:
        raise UserError(
            "A packed cache needs at least one row a block and one file.",
            received=f"block_rows={block_rows}, files={files}",
        )
    place = str(out)
    try:
        if tf.io.gfile.exists(place) and tf.io.gfile.listdir(place):
            raise UserError(
                f"'{place}' is not empty.", fix="choose another folder for the packed cache"
            )
        tf.io.gfile.makedirs(place)
        _write(cache, place, block_rows, files)
    except (tf.errors.OpError, OSError) as error:
        raise unwritable(Path(place), error) from error


def _write(cache: EncodedCache, place: str, block_rows: int, files: int) -> None:
    layout = block_format(cache, block_rows)
    count = -(-cache.rows // block_rows)
    files = max(1, min(files, count))
    names = [f"rows-{k:05d}-of-{files:05d}.tfrecord" for k in range(files)]
    writers = [tf.io.TFRecordWriter(f"{place}/{name}") for name in names]
    ends = [0] * files
    blocks = np.zeros((count, 4), np.int64)
    for b in range(count):
        file = b % files
        rows = slice(b * block_rows, min((b + 1) * block_rows, cache.rows))
        data = layout.encode(*cache.stored(rows))
        writers[file].write(data)
        blocks[b] = file, ends[file] + RECORD_HEAD, len(data), zlib.crc32(data)
        ends[file] += RECORD_HEAD + len(data) + _RECORD_TAIL
    for writer in writers:
        writer.close()
    for name in (*INDEX, *AHEAD, *ahead_bag_columns(cache)):
        _save(place, name, cache.column(name))
    if cache.best_possible is not None:
        _save(place, "best_possible", cache.best_possible)
    _save(place, "blocks", blocks)
    for side in _SIDES:
        buffer = io.BytesIO()
        pq.write_table(pa.table({"key": cache.keys(side)}), buffer)
        _write_file(f"{place}/{side}_keys.parquet", buffer.getvalue())
    packed = {
        "version": VERSION,
        "rows": cache.rows,
        "format": layout.to_json(),
        "files": [{"name": n, "bytes": e} for n, e in zip(names, ends, strict=True)],
    }
    manifest = json.dumps({**cache.manifest, "packed": packed}, indent=1)
    _write_file(f"{place}/manifest.json", manifest.encode())


def ahead_bag_columns(cache: EncodedCache) -> list[str]:
    """Stored columns of the rows ahead's bags; they are unweighted."""
    bags = cache.manifest["ahead_bags"]
    return [f"{name}@ahead.{part}" for name in bags for part in ("values", "splits")]


def block_format(cache: EncodedCache, block_rows: int) -> BlockFormat:
    """The format of a cache's blocks."""
    columns, bags = cache.stored(slice(0, cache.rows))
    starts = np.arange(0, cache.rows + block_rows, block_rows).clip(max=cache.rows)
    return BlockFormat(
        rows=block_rows,
        columns=tuple(
            ColumnFormat(name, array.dtype.newbyteorder("<").str, array.shape[1:])
            for name, array in columns.items()
        ),
        bags=tuple(
            BagFormat(name, bag.weights is not None, int(np.diff(bag.splits[starts]).max()))
            for name, bag in bags.items()
        ),
    )


def _save(place: str, name: str, array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array))
    _write_file(f"{place}/{file_name(name)}.npy", buffer.getvalue())


def _write_file(path: str, data: bytes) -> None:
    with tf.io.gfile.GFile(path, "wb") as stream:
        stream.write(data)


def main(arguments: list[str] | None = None) -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(prog="lfm4ads-pack", description=__doc__)
    parser.add_argument("cache", type=Path, help="the `data` folder of a run")
    parser.add_argument("out", help="folder or address of the packed form")
    parser.add_argument("--block-rows", type=int, default=1024, help="rows of a record")
    parser.add_argument("--files", type=int, default=8, help="TFRecord files")
    options = parser.parse_args(arguments)
    try:
        if not (options.cache / "ids.npy").exists():
            raise UserError(
                f"'{options.cache}' holds no encoded cache.",
                fix="give the `data` folder of a run that was prepared",
            )
        cache = EncodedCache(options.cache)
        pack(cache, options.out, options.block_rows, options.files)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{cache.rows:,} rows -> {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
