"""Tables in memory: Arrow tables, data frames, mappings of columns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lfm4ads_tf.errors import UserError


def write_table(rows: Any, path: Path, what: str) -> int:
    """Writes rows as a Parquet file.

    Args:
        rows: A `pyarrow.Table` or `RecordBatch`; a data frame of pandas, Polars or another library
            that speaks Arrow's C stream interface; or a mapping of column -> values.
        path: The file.
        what: What the rows are, for messages.

    Returns:
        The number of rows.

    Raises:
        UserError: They are none of these, two columns have one name, or Arrow cannot hold a column.
    """
    try:
        table = _arrow(rows)
        if table is not None:
            _refuse_repeated(table, what)
            pq.write_table(table, path)
            return len(table)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise UserError(
            f"{what} cannot be read as an Arrow table.",
            received=str(error).splitlines()[0],
            fix="give columns of one length, each with values of one type that Parquet can hold: "
            "texts, numbers, times, lists",
        ) from error
    raise UserError(
        f"{what} must be a table.",
        received=f"a {type(rows).__name__}",
        fix="give a pyarrow.Table, a data frame, or a mapping of columns",
    )


def _arrow(rows: Any) -> pa.Table | None:
    """Rows as an Arrow table; None where they are no table."""
    if isinstance(rows, pa.Table):
        return rows
    if isinstance(rows, pa.RecordBatch):
        return pa.Table.from_batches([rows])
    if isinstance(rows, Mapping):
        return pa.table(dict(rows))
    if type(rows).__module__.partition(".")[0] == "pandas":
        return pa.Table.from_pandas(rows, preserve_index=False)  # the stream would hold its index
    return pa.table(rows) if hasattr(rows, "__arrow_c_stream__") else None


def _refuse_repeated(table: pa.Table, what: str) -> None:
    names = table.column_names
    repeated = [name for k, name in enumerate(names) if name in names[:k]]
    if repeated:
        raise UserError(
            f"{what} has two columns '{repeated[0]}'.", fix="rename or drop one of them"
        )
