"""Files of rows of a table, written and read by the process that has the rows at hand.

Nothing here raises for a file: what is wrong with it comes back as a text, since an error would
reach another process as the text of a TensorFlow error.
"""

from __future__ import annotations

import os
import uuid
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tensorflow as tf

LEFTOVERS = ".*.part"
"""What a process that died while it wrote leaves in a folder."""


def memory_dtype(storage: str) -> np.dtype[Any]:
    """Type of stored elements in memory."""
    return np.dtype(tf.as_dtype(storage).as_numpy_dtype)


def file_dtype(storage: str) -> np.dtype[Any]:
    """Type of stored elements in a file: one that the .npy format has, for bfloat16 its bits."""
    if storage == "bfloat16":
        return np.dtype("<u2")
    return memory_dtype(storage).newbyteorder("<")


def to_file(values: np.ndarray, storage: str) -> np.ndarray:
    """Elements as a file holds them; exact, where the values come from this storage.

    Args:
        values: (N, width) float32.
        storage: Type of the stored elements.

    Returns:
        (N, width) of the file's type.
    """
    return values.astype(memory_dtype(storage), copy=False).view(file_dtype(storage))


def from_file(block: np.ndarray, storage: str) -> np.ndarray:
    """The counterpart of `to_file`, (N, width) float32."""
    return block.view(memory_dtype(storage)).astype(np.float32, copy=False)


def write_header(stream: BinaryIO, storage: str, rows: int, width: int) -> None:
    """Starts a file of (rows, width)."""
    descr = file_dtype(storage).str
    header = {"descr": descr, "fortran_order": False, "shape": (rows, width)}
    np.lib.format.write_array_header_1_0(stream, header)


def open_rows(path: Path, storage: str, rows: int, width: int) -> BinaryIO:
    """A file at its first element.

    Args:
        path: The file.
        storage: Type of the elements that it must hold.
        rows, width: Shape that it must have.

    Raises:
        OSError: It cannot be opened.
        ValueError: Its header or its size is another one.
    """
    stream = path.open("rb")
    try:
        np.lib.format.read_magic(stream)
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        expected = (rows, width), False, file_dtype(storage)
        if (shape, fortran, dtype) != expected:
            raise ValueError(f"shape {shape} of {dtype}, expected {expected[0]} of {expected[2]}")
        size = os.fstat(stream.fileno()).st_size
        whole = stream.tell() + rows * width * file_dtype(storage).itemsize
        if size != whole:
            raise ValueError(f"{size:,} bytes, expected {whole:,}")
    except (OSError, ValueError):
        stream.close()
        raise
    return stream


def write_segment(path: Any, storage: Any, values: np.ndarray) -> tuple[np.int64, bytes]:
    """Writes rows as a file, beside its place and renamed, so that a second writer does no harm.

    The folder must exist: on a worker that does not see the chief's folder, making it would hide
    that the files are lost.

    Args:
        path: Absolute path of the file, bytes.
        storage: Type of the stored elements, bytes.
        values: (N, width) float32.

    Returns:
        Checksum of the elements, and what went wrong, empty if nothing did.
    """
    target, kind = Path(text_of(path)), text_of(storage)
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        block = np.ascontiguousarray(to_file(values, kind))
        try:
            with part.open("wb") as stream:
                write_header(stream, kind, *block.shape)
                stream.write(block.data)
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        return np.int64(0), _reason(error)
    return np.int64(zlib.crc32(block.data)), b""


def read_segment(
    path: Any, storage: Any, rows: Any, width: Any, start: Any, stop: Any
) -> tuple[np.ndarray, np.int64, bytes]:
    """Reads rows [start, stop) of a file.

    Args:
        path: Absolute path of the file, bytes.
        storage: Type of the elements that it must hold, bytes.
        rows, width: Shape that it must have.
        start, stop: The rows to read.

    Returns:
        (stop - start, width) float32, the checksum of their elements as stored, and what is wrong
        with the file, empty if nothing is. A file that is wrong gives no rows.
    """
    kind = text_of(storage)
    shape = int(rows), int(width)
    try:
        with open_rows(Path(text_of(path)), kind, *shape) as stream:
            block = np.empty((int(stop) - int(start), shape[1]), file_dtype(kind))
            stream.seek(int(start) * shape[1] * block.itemsize, os.SEEK_CUR)
            read_whole(stream, block)
    except (OSError, ValueError) as error:
        return np.zeros((0, shape[1]), np.float32), np.int64(0), _reason(error)
    return from_file(block, kind), np.int64(zlib.crc32(block.data)), b""


def read_whole(stream: BinaryIO, block: np.ndarray) -> None:
    """Fills an array from a file.

    Raises:
        ValueError: The file ends before.
    """
    if stream.readinto(block.data) != block.nbytes:  # type: ignore[attr-defined]
        raise ValueError("the file ends too early")


HOST_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "write_segment": write_segment,
    "read_segment": read_segment,
}
"""What every process of a cluster must offer to the graphs that it runs, by name."""


def text_of(value: Any) -> str:
    """A text that TensorFlow hands over as bytes, alone or in an array without axes."""
    found = value.item() if isinstance(value, np.ndarray) else value
    return found.decode() if isinstance(found, bytes) else str(found)


def _reason(error: Exception) -> bytes:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).encode()
