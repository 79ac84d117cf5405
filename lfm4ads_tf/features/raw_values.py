"""Raw columns of any accepted container (NumPy or Arrow) as arrays of one known type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.features.value_texts import value_text, value_texts

Columns = Mapping[str, Any]
"""Raw column -> NumPy array, Arrow array, or (values, offsets) for a list."""


def column_of(columns: Columns, name: str) -> Any:
    """Returns a column.

    Raises:
        UserError: There is none of that name.
    """
    if name not in columns:
        raise UserError(
            f"The data has no column '{name}', which the feature spec reads."
            + nearest(name, columns),
            fix="correct the feature's `column`, or add the column to the data",
        )
    column = columns[name]
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def texts(column: Any) -> pa.Array:
    """One text per row, (N,) string without nulls: "" is missing.

    Texts stay as they are, as in a served model; other values have the text of `value_texts`.
    """
    try:
        array = _arrow(column)
    except OverflowError:  # an integer beyond 64 bits among objects
        array = pa.array([None if v is None or v != v else value_text(v) for v in column])
    if not pa.types.is_string(array.type):
        array = value_texts(array)
    return pc.fill_null(array, "")


def numbers(column: Any) -> np.ndarray:
    """One number per row, (N,) float64: NaN is missing."""
    if isinstance(column, pa.Array):
        column = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return np.asarray(column, np.float64)


def integers(column: Any) -> np.ndarray:
    """One integer per row, (N,) int64; -1 for anything that is not a non-negative integer."""
    if isinstance(column, pa.Array) and pa.types.is_integer(column.type):
        if pa.types.is_unsigned_integer(column.type):  # what int64 lacks is no id
            within = pc.less(column, pa.scalar(2**63, pa.uint64()))
            column = pc.if_else(within, column, pa.scalar(None, column.type)).cast(pa.int64())
        column = pc.fill_null(column, -1).to_numpy(zero_copy_only=False)
    if isinstance(column, np.ndarray) and column.dtype.kind == "u":
        return np.where(column < 2**63, column, 0).astype(np.int64) - (column >= 2**63)
    if isinstance(column, np.ndarray) and column.dtype.kind == "i":
        return column.astype(np.int64)
    values = numbers(column)
    valid = (values >= 0) & (values < 2.0**53) & (np.floor(values) == values)
    return np.where(valid, values, -1.0).astype(np.int64)


def slice_rows(column: Any, rows: slice) -> Any:
    """Consecutive rows of a column; a list column stays a list column."""
    if isinstance(column, tuple):
        values, offsets = column
        start, stop, _ = rows.indices(len(offsets) - 1)
        kept = np.asarray(offsets[start : max(stop, start) + 1], np.int64)
        return values[int(kept[0]) : int(kept[-1])], kept - kept[0]
    if isinstance(column, pa.Array):
        start, stop, _ = rows.indices(len(column))
        return column.slice(start, max(stop - start, 0))
    return column[rows]


def row_count(column: Any) -> int:
    """Rows of a column."""
    return len(column[1]) - 1 if isinstance(column, tuple) else len(column)


def lists(column: Any) -> tuple[Any, np.ndarray]:
    """A list per row as flat values (M,), Arrow or NumPy, and row splits (N + 1,) int64."""
    if isinstance(column, tuple):
        return column[0], np.asarray(column[1], np.int64)
    array = _arrow(column)
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    splits = np.zeros(len(array) + 1, np.int64)
    np.cumsum(lengths, out=splits[1:])
    # `flatten` skips the values under null lists and outside of a slice, as the splits do.
    return array.flatten(), splits


def vectors(column: Any, size: int, name: str, *, first_row: int = 0) -> np.ndarray:
    """A vector per row, (N, size) float32; a missing vector becomes zeros.

    Args:
        column: A list per row.
        size: Length of every vector.
        name: The column, for messages.
        first_row: Number of the first row, for messages.

    Raises:
        UserError: A vector has another length, or a number that is not finite in float32.
    """
    if isinstance(column, np.ndarray) and column.ndim == 2:
        lengths = np.full(len(column), column.shape[1])
        flat: Any = column.reshape(-1)  # (N * size,)
    else:
        flat, splits = lists(column)
        lengths = np.diff(splits)
    wrong = (lengths != 0) & (lengths != size)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise UserError(
            f"Column '{name}' must hold vectors of {size} numbers.",
            received=f"{lengths[row]} numbers in row {first_row + row}",
            fix="correct the data, or the `size` of the feature",
        )
    out = np.zeros((len(lengths), size), np.float32)
    with np.errstate(over="ignore"):
        out[lengths == size] = numbers(flat).reshape(-1, size)  # (present rows, size)
    infinite = ~np.isfinite(out).all(axis=1)
    if infinite.any():
        row = int(np.argmax(infinite))
        raise UserError(
            f"Column '{name}' holds NaN, infinity or a number beyond float32 inside a vector.",
            received=f"{out[row][~np.isfinite(out[row])][0]} in row {first_row + row}",
            fix="correct the vector, or leave it out: a missing vector is zeros",
        )
    return out


def _arrow(column: Any) -> pa.Array:
    if isinstance(column, pa.Array):
        return column
    return pa.array(column, from_pandas=True)
