"""Cells that stand for a missing value, taken out of a column of a file."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lfm4ads_tf.data.sources.convert import ColumnType, is_binary, is_list, plain_array
from lfm4ads_tf.features.missing_values import MissingValues
from lfm4ads_tf.features.row_sets import RowSet


def take_out_texts(
    column: pa.ChunkedArray, missing: MissingValues, name: str, kind: ColumnType
) -> pa.ChunkedArray:
    """Empties cells of text that are markers, before they are read as numbers or lists.

    Args:
        column: The values as a file holds them, (rows,).
        missing: The markers; what is found is counted.
        name: The column.
        kind: What it is read as; of a column of texts, markers are taken out after it is.
    """
    markers = missing.of(name)
    if markers is None or kind == "string":
        return column
    chunks = [_emptied(plain_array(c), markers, missing, name, kind) for c in column.chunks]
    return pa.chunked_array(chunks, type=None if chunks else column.type)


def take_out_values(
    column: pa.ChunkedArray, missing: MissingValues, name: str, kind: ColumnType
) -> pa.ChunkedArray:
    """Empties the typed values that are markers.

    A marker among the texts of a list becomes an empty text, so that places in the list and in
    its weights agree; numbers inside of lists are no markers.
    """
    markers = missing.of(name)
    if markers is None or kind == "floats":
        return column
    chunks = []
    for chunk in column.chunks:
        values = chunk.flatten() if kind == "strings" else chunk
        is_marker = _found(values, markers, missing, name)
        if kind != "strings":
            chunks.append(pc.if_else(is_marker, pa.scalar(None, chunk.type), chunk))
            continue
        lengths = pc.list_value_length(chunk).to_numpy(zero_copy_only=False)
        splits = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        kept = pc.if_else(is_marker, pa.scalar("", pa.string()), values)
        chunks.append(pa.ListArray.from_arrays(pa.array(splits), kept))
    return pa.chunked_array(chunks, type=column.type)


def _emptied(
    array: pa.Array, markers: RowSet, missing: MissingValues, name: str, kind: ColumnType
) -> pa.Array:
    """One chunk without the markers among its texts."""
    if is_list(array.type):
        inside = plain_array(array.flatten())
        if kind == "strings" or not _is_text(inside.type):
            return array
        # A record holds a single text as a list of one; the list is what is missing.
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
        alone = np.repeat(lengths == 1, lengths)
        is_marker = _found(inside, markers, missing, name, only=alone)
        kept = ~is_marker.to_numpy(zero_copy_only=False)
        row = np.repeat(np.arange(len(array)), lengths)
        splits = np.zeros(len(array) + 1, np.int32)
        np.cumsum(np.bincount(row[kept], minlength=len(array)), out=splits[1:])
        return pa.ListArray.from_arrays(pa.array(splits), inside.filter(pa.array(kept)))
    if not _is_text(array.type):
        return array
    is_marker = _found(array, markers, missing, name)
    return pc.if_else(is_marker, pa.scalar(None, array.type), array)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or is_binary(kind))


def _found(
    values: pa.Array,
    markers: RowSet,
    missing: MissingValues,
    name: str,
    only: np.ndarray | None = None,
) -> pa.Array:
    """Which values are markers, (M,) bool; they are counted by marker."""
    if _is_text(values.type):
        known = pa.array(markers.texts, pa.string()).cast(values.type)
        is_marker = pc.is_in(values, value_set=known)
    elif pa.types.is_floating(values.type):
        held = values.to_numpy(zero_copy_only=False)
        is_marker = pa.array(_equal_numbers(held, markers))
    else:
        is_marker = pa.array(markers.rows(values))
    if only is not None:
        is_marker = pc.and_(is_marker, pa.array(only))
    hits = pc.value_counts(values.filter(is_marker))
    for value, count in zip(hits.field("values"), hits.field("counts"), strict=True):
        given = value.as_py()
        marker = next(m for m in markers.values if _is(given, RowSet(by=name, values=[m])))
        missing.found[name, str(marker)] += count.as_py()
    return is_marker


def _equal_numbers(values: np.ndarray, markers: RowSet) -> np.ndarray:
    """Whether numbers are markers, exactly or in float32: what a graph takes for one is one."""
    known = np.asarray(markers.numbers, np.float64)
    with np.errstate(over="ignore"):
        short, short_known = values.astype(np.float32), known.astype(np.float32)
    same = np.isin(short, short_known[np.isfinite(short_known)])
    return np.asarray(np.isin(values, known) | same, bool)


def _is(value: object, marker: RowSet) -> bool:
    """Whether a found value is this one marker."""
    if isinstance(value, float):
        return bool(_equal_numbers(np.array([value]), marker)[0])
    text = value.decode() if isinstance(value, bytes) else value
    return text in (marker.texts if isinstance(text, str) else marker.numbers)
