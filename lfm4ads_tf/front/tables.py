"""Tables in memory: Arrow tables, data frames, mappings of columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from lfm4ads_tf.errors import UserError


def arrow_table(rows: Any, what: str) -> pa.Table:
    """Rows as an Arrow table.

    Args:
        rows: A `pyarrow.Table` or `RecordBatch`; a data frame of pandas, Polars or another library
            that speaks Arrow's C stream interface; or a mapping of column -> values.
        what: What the rows are, for messages.

    Raises:
        UserError: They are none of these, or Arrow cannot hold a column.
    """
    try:
        if isinstance(rows, pa.Table):
            return rows
        if isinstance(rows, pa.RecordBatch):
            return pa.Table.from_batches([rows])
        if isinstance(rows, Mapping):
            return pa.table(dict(rows))
        if hasattr(rows, "to_parquet") and hasattr(rows, "columns"):  # pandas: without its index
            return pa.Table.from_pandas(rows, preserve_index=False)
        if hasattr(rows, "__arrow_c_stream__"):
            return pa.table(rows)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise UserError(
            f"{what} cannot be read as an Arrow table.",
            received=str(error).splitlines()[0],
            fix="give every column values of one type",
        ) from error
    raise UserError(
        f"{what} must be a table.",
        received=f"a {type(rows).__name__}",
        fix="give a pyarrow.Table, a data frame, or a mapping of columns",
    )
