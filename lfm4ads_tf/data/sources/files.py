"""What all readers share: checks of a path, gzip detection, the message for a missing column."""

from __future__ import annotations

import gzip
import io
from collections.abc import Sequence
from pathlib import Path

from lfm4ads_tf.errors import UserError, nearest

GZIP_MAGIC = b"\x1f\x8b\x08"


class NoRows(UserError):
    """A file holds no row: refused alone, passed over beside files that do."""


def check_file(path: Path) -> None:
    """Checks that `path` is a readable file of at least one byte.

    Args:
        path: The file.

    Raises:
        UserError: It is missing, a folder, unreadable or empty.
    """
    if not path.exists():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(
            f"File '{path}' does not exist.{nearest(path.name, siblings)}",
            received=path,
            fix="correct the path, or the folder given with --data-dir.",
        )
    if not path.is_file():
        raise UserError(
            f"'{path}' is a folder, but a file is needed.",
            received=path,
            fix="name the files inside it.",
        )
    try:
        with path.open("rb") as stream:
            first = stream.read(1)
    except OSError as error:
        raise UserError(
            f"File '{path}' cannot be read.",
            received=error.strerror or error,
            fix="check its permissions.",
        ) from error
    if not first:
        raise NoRows(
            f"File '{path}' is empty.",
            received="0 bytes",
            fix="write the file again, or leave it out.",
        )


def is_gzip(path: Path) -> bool:
    """Returns whether the content of `path` is gzipped, whatever its name says."""
    with path.open("rb") as stream:
        return stream.read(len(GZIP_MAGIC)) == GZIP_MAGIC


def open_bytes(path: Path) -> gzip.GzipFile | io.BufferedReader:
    """Returns a binary stream of the content of `path`, decompressed when it is gzipped."""
    if is_gzip(path):
        return gzip.GzipFile(path, "rb")
    return path.open("rb")


def check_columns(path: Path, wanted: Sequence[str], available: Sequence[str]) -> None:
    """Checks that every wanted column exists exactly once.

    Args:
        path: The file, for the message.
        wanted: The columns to read.
        available: The columns of the file, as often as they occur.

    Raises:
        UserError: A column is missing or occurs twice.
    """
    for name in wanted:
        if name not in available:
            raise UserError(
                f"Column '{name}' is missing in '{path}'.{nearest(name, available)}",
                received="columns " + ", ".join(repr(known) for known in available),
                fix="correct the column in the feature spec, or add it to the file.",
            )
        if list(available).count(name) > 1:
            raise UserError(
                f"Column '{name}' occurs {list(available).count(name)} times in '{path}'.",
                received="columns " + ", ".join(repr(known) for known in available),
                fix="rename or drop all but one of them.",
            )


def no_rows(path: Path) -> NoRows:
    """Returns the error for a file without any data row."""
    return NoRows(
        f"File '{path}' has no data rows.",
        received="0 rows",
        fix="write the file again, or leave it out.",
    )
