"""Parquet files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lfm4ads_tf.data.sources.files import check_columns, check_file, no_rows
from lfm4ads_tf.errors import UserError


def read_parquet(path: Path, columns: Sequence[str]) -> pa.Table:
    """Reads top-level columns of a Parquet file in their stored types.

    Args:
        path: The file.
        columns: The columns to read, without repetition.

    Returns:
        A table of the columns in the order asked for.

    Raises:
        UserError: The file is missing, empty, without rows or corrupt, or a column is missing.
    """
    check_file(path)
    try:
        with pq.ParquetFile(path) as file:
            available = file.schema_arrow.names
            rows = file.metadata.num_rows
            check_columns(path, columns, available)
            if not rows:
                raise no_rows(path)
            return file.read(columns=list(columns)).select(list(columns))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _corrupt(path, error) from error


def parquet_columns(path: Path) -> list[str]:
    """Names of the top-level columns of a Parquet file.

    Raises:
        UserError: The file is missing, empty or corrupt.
    """
    check_file(path)
    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _corrupt(path, error) from error


def _corrupt(path: Path, error: Exception) -> UserError:
    return UserError(
        f"File '{path}' cannot be read as Parquet: it is truncated or corrupt.",
        received=error,
        fix="copy or write the file again; the extension .parquet must mean Parquet.",
    )
