"""Vectors by key in a file, read batch by batch."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lfm4ads_tf.embeddings.config import TablePretrained
from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.features.value_texts import value_texts

BATCH_ROWS = 1 << 16  # rows read at once

KeyedVectors = tuple[pa.Array, Any]
"""Keys (N,) string without nulls, and vectors (N, W): NumPy, or Arrow lists of any lengths."""


def read_vectors(source: TablePretrained) -> Iterator[KeyedVectors]:
    """Reads keys and vectors in slices.

    Parquet: a column of keys, and a column of lists or one numeric column per element. `.npz`: an
    array of keys (N,) and one of vectors (N, W), or one (N,) array per element. `.npy`: vectors
    (N, W), and their keys (N,) in another `.npy` file that `source.key` names, relative to the
    first; it is mapped into memory, not read as a whole.

    Raises:
        UserError: The file is not there, cannot be read, is of another type, or lacks a column;
            keys and vectors differ in number, or a key is missing.
    """
    readers = {".parquet": _parquet, ".npz": _npz, ".npy": _npy}
    reader = readers.get(source.file.suffix)
    if reader is None:
        raise UserError(
            f"'{source.file}' is no file that pretrained embeddings are read from.",
            fix=f"give a file that ends with {', '.join(readers)}",
        )
    names = [source.vector] if isinstance(source.vector, str) else list(source.vector)
    try:
        for keys, vectors in reader(source, names):
            if keys.null_count or pc.any(pc.equal(keys, "")).as_py():
                raise UserError(
                    f"A row of '{source.file}' has no key.",
                    received=f"a missing value in '{source.key}'",
                    fix="remove the row, or give it its key",
                )
            yield keys, vectors
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, pa.ArrowException) as error:
        raise UserError(
            f"Pretrained embeddings cannot be read from '{source.file}'.",
            received=getattr(error, "strerror", None) or error,
            fix="check the path and the file",
        ) from error


def _parquet(source: TablePretrained, names: list[str]) -> Iterator[KeyedVectors]:
    with pq.ParquetFile(source.file) as file:
        _require(source, [source.key, *names], file.schema_arrow.names)
        columns = list(dict.fromkeys([source.key, *names]))
        for batch in file.iter_batches(BATCH_ROWS, columns=columns):
            keys = value_texts(batch[source.key])
            arrays = [batch[name] for name in names]
            for name, column in zip(names, arrays, strict=True):
                kind = column.type.value_type if _is_list(column.type) else column.type
                if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
                    raise _no_numbers(source, name, kind)
            if len(arrays) == 1 and _is_list(arrays[0].type):
                yield keys, arrays[0]
            else:
                yield keys, np.stack([_numbers(column) for column in arrays], axis=1)  # (N, W)


def _npz(source: TablePretrained, names: list[str]) -> Iterator[KeyedVectors]:
    with _load(source.file, np.lib.npyio.NpzFile) as arrays:
        _require(source, [source.key, *names], arrays.files)
        keys, found = arrays[source.key], [arrays[name] for name in names]
    vectors = found[0] if len(found) == 1 else np.stack(found, axis=1)  # (N, W)
    yield from _slices(source, keys, vectors)


def _npy(source: TablePretrained, names: list[str]) -> Iterator[KeyedVectors]:
    keys_file = source.file.parent / source.key
    if keys_file.suffix != ".npy":
        raise UserError(
            f"The vectors of '{source.file}' need a file of their keys.",
            received=f"key: {source.key}",
            fix="give the name of a .npy file with `key`",
        )
    keys, vectors = (_load(path, np.ndarray) for path in (keys_file, source.file))
    yield from _slices(source, keys, vectors)


def _load(path: Path, kind: type) -> Any:
    """What a NumPy file holds, arrays mapped into memory."""
    found = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(found, kind):
        raise ValueError(f"'{path.name}' is no {path.suffix} file")
    return found


def _slices(
    source: TablePretrained, keys: np.ndarray, vectors: np.ndarray
) -> Iterator[KeyedVectors]:
    if keys.ndim != 1 or vectors.ndim > 2 or len(keys) != len(vectors):
        raise UserError(
            f"Keys and vectors of '{source.file}' do not match.",
            received=f"keys of shape {keys.shape}, vectors of shape {vectors.shape}",
            fix="give keys of shape (N,) and vectors of shape (N, width)",
        )
    if vectors.dtype.kind not in "fiu":
        raise _no_numbers(source, str(source.vector), vectors.dtype)
    vectors = vectors if vectors.ndim == 2 else vectors[:, np.newaxis]  # (N, W)
    for start in range(0, len(keys), BATCH_ROWS):
        rows = slice(start, start + BATCH_ROWS)
        yield _texts(keys[rows]), vectors[rows]


def _texts(keys: np.ndarray) -> pa.Array:
    """NumPy keys, numbers or texts, as texts."""
    return value_texts(pa.array(np.asarray(keys)))


def _numbers(column: pa.Array) -> np.ndarray:
    """A numeric column, NaN where it is null, (N,) float64."""
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))


def _is_list(kind: pa.DataType) -> bool:
    return (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _no_numbers(source: TablePretrained, name: str, kind: object) -> UserError:
    return UserError(
        f"'{name}' of '{source.file}' does not hold vectors of numbers.",
        received=str(kind),
        fix="give floats or integers with `vector`",
    )


def _require(source: TablePretrained, wanted: list[str], known: list[str]) -> None:
    for name in wanted:
        if name not in known:
            raise UserError(
                f"'{source.file}' has no column '{name}'.{nearest(name, known)}",
                received=f"columns {', '.join(known)}",
                fix="correct `key` or `vector`",
            )
