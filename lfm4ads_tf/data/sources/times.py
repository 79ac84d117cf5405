"""Columns of times: numbers as they are, ISO 8601 text, dates and timestamps."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lfm4ads_tf.data.sources.convert import (
    NAN,
    decode_text,
    is_binary,
    is_list,
    is_number,
    parse_float,
    plain_array,
    single_values,
)
from lfm4ads_tf.data.sources.origin import Origin
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.moments import MOMENTS, microseconds_of

TIME = "\0time:"
"""Before the name of a column that is read as times, beside the same column as a feature reads it.
No column of a file begins like this."""

MOMENT = pa.timestamp("us")
"""Arrow type of dates and times: microseconds since 1970 in UTC."""

_LOG = logging.getLogger(__name__)

_EXACT_SINGLE = 2.0**24  # from here on a 32-bit float skips integers
_FIX_CELL = (
    "correct the cell: a number since an epoch, a date such as 2026-01-05, or a time such as "
    "2026-01-05T10:00:00 or 2026-01-05T10:00:00+02:00; without a zone it is UTC."
)
_FIX_ISO = "write it in ISO 8601, such as 2026-01-05T10:00:00Z, or drop `time_unit: iso`."
_FIX_MIXED = "write all times of the column alike: all as numbers, or all as dates or times."
_FIX_INFINITE = "replace it by the time of the event, or remove the row."
_FIX_TYPE = "store the column as numbers, as ISO 8601 text, or as dates or timestamps."


def convert_times(
    column: pa.ChunkedArray, *, path: Path, name: str, iso: bool = False
) -> pa.ChunkedArray:
    """Converts a column of one file that orders the log.

    Args:
        column: The values as the file holds them, (rows,): numbers or their text; ISO 8601 text;
            dates; timestamps of any unit. What has no zone is UTC.
        path: The file, for messages.
        name: The column, for messages.
        iso: Whether only dates and times will do: text of digits is a date (`20260105`), too, and
            stored numbers are refused.

    Returns:
        (rows,) float64 for numbers, `MOMENT` for dates and times; null where the value is missing.
        A time finer than a microsecond is cut to it.

    Raises:
        UserError: A value is no time, or numbers and dates are mixed; the message names row,
            column, file and value.
    """
    chunks: list[pa.Array] = []
    rows = 0
    kind: pa.DataType | None = None
    for chunk in column.chunks:
        origin = Origin(path, name, rows)
        values = plain_array(chunk)
        values = single_values(values, origin) if is_list(values.type) else values
        found = _converted(values, origin, iso)
        if found.null_count < len(found):
            if kind is not None and found.type != kind:
                at = pc.index(pc.is_valid(found), True).as_py()
                raise _mixed(values, at, kind, origin)
            kind = found.type
        chunks.append(found)
        rows += len(chunk)
    kind = kind or pa.float64()
    return pa.chunked_array([_as_kind(c, kind) for c in chunks], type=kind)


def alike(
    columns: Sequence[pa.ChunkedArray], paths: Sequence[Path], name: str
) -> list[pa.ChunkedArray]:
    """The same column of several files, converted, in one type.

    Raises:
        UserError: Some files hold numbers and others dates or times.
    """
    known = [k for k, c in enumerate(columns) if c.null_count < len(c)]
    for k in known[1:]:
        if columns[k].type != columns[known[0]].type:
            kinds = [_kind_name(columns[j].type) for j in (known[0], k)]
            raise UserError(
                f"Column '{name}' holds {kinds[0]} in '{paths[known[0]]}', but {kinds[1]} in "
                f"'{paths[k]}'.",
                fix=_FIX_MIXED,
            )
    kind = columns[known[0]].type if known else pa.float64()
    return [
        pa.chunked_array([_as_kind(chunk, kind) for chunk in c.chunks], type=kind) for c in columns
    ]


def is_calendar(times: pa.Array) -> bool:
    """Whether a converted column holds dates or times rather than numbers."""
    return bool(pa.types.is_timestamp(times.type))


def time_numbers(times: pa.Array) -> np.ndarray:
    """A converted column as numbers, (N,) float64, NaN where missing.

    Returns:
        Numbers as they are; dates and times in seconds since 1970 in UTC, the double nearest to
        the microsecond.
    """
    if not is_calendar(times):
        return np.asarray(times.to_numpy(zero_copy_only=False), np.float64)
    whole = pc.fill_null(times.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
    seconds = whole / 1e6
    seconds[pc.is_null(times).to_numpy(zero_copy_only=False)] = math.nan
    return np.asarray(seconds)


def _converted(values: pa.Array, origin: Origin, iso: bool) -> pa.Array:
    kind = values.type
    if is_binary(kind):
        values = decode_text(values, origin, None)
    if pa.types.is_string(values.type):
        return _of_text(values, origin, iso)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _in_range(_of_moments(values, origin), values, origin)
    if not is_number(kind) or (iso and values.null_count < len(values)):
        raise origin.type_error(kind, "time", _FIX_ISO if is_number(kind) else _FIX_TYPE)
    numbers = _finite(pc.cast(values, pa.float64(), safe=False), values, origin)
    largest = pc.max(pc.abs(numbers)).as_py() or 0.0
    if pa.types.is_float32(kind) and largest >= _EXACT_SINGLE:
        _LOG.warning(
            "column '%s' of '%s' holds times up to %.15g as 32-bit floats, which are %g apart "
            "there: store 64-bit integers",
            origin.column,
            origin.path,
            largest,
            float(np.spacing(np.float32(largest))),
        )
    return numbers


def _of_moments(values: pa.Array, origin: Origin) -> pa.Array:
    """Dates and timestamps, zones being of no matter to the moment."""
    kind = values.type
    if pa.types.is_date(kind):
        values, kind = values.cast(pa.timestamp("s" if kind.bit_width == 32 else "ms")), None
    if kind is not None and kind.unit == "ns":
        whole = pc.fill_null(values.cast(pa.int64()), 0).to_numpy(zero_copy_only=False) // 1000
        missing = pc.is_null(values).to_numpy(zero_copy_only=False)
        return pa.array(whole, pa.int64(), mask=missing).cast(MOMENT)
    try:
        moments = values.cast(pa.timestamp("us", values.type.tz))
    except pa.ArrowInvalid as error:
        raise origin.type_error(
            values.type, "time", "correct the times: one is out of range."
        ) from (error)
    return moments.cast(pa.int64()).cast(MOMENT)


def _of_text(text: pa.Array, origin: Origin, iso: bool) -> pa.Array:
    """Text: by one cast where all of it is plain and alike, else each distinct text by itself."""
    text = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
    if text.null_count == len(text):
        return pa.nulls(len(text), pa.float64())
    kinds = [] if iso else [pa.float64()]
    # Arrow wants a zone for every value of a type with one, and for none of a type without.
    for kind in [*kinds, MOMENT, pa.timestamp("us", "UTC")]:
        try:
            found = pc.cast(text, kind)
        except pa.ArrowInvalid:
            continue
        if kind == pa.float64():
            return _finite(found, text, origin)
        return _in_range(found.cast(pa.int64()).cast(MOMENT), text, origin)
    coded = text.dictionary_encode()
    known = [value.strip() for value in coded.dictionary.to_pylist()]
    missing = [not value or bool(NAN.fullmatch(value)) for value in known]
    numbers = [None if iso or m else parse_float(v) for v, m in zip(known, missing, strict=True)]
    moments = [
        None if m or n is not None else microseconds_of(v)
        for v, m, n in zip(known, missing, numbers, strict=True)
    ]
    parsed = list(zip(missing, numbers, moments, strict=True))
    wrong = pa.array([not m and n is None and t is None for m, n, t in parsed]).take(coded.indices)
    at = pc.index(wrong, True).as_py()
    if at >= 0:
        what = "is not a time in ISO 8601" if iso else "is neither a number nor a date or time"
        raise origin.error(what, at, text[at].as_py(), _FIX_ISO if iso else _FIX_CELL)
    if any(n is not None for n in numbers) and any(t is not None for t in moments):
        dated = pa.array([None if m else t is not None for m, _, t in parsed]).take(coded.indices)
        first = dated.drop_null()[0].as_py()
        at = pc.index(dated, not first).as_py()
        raise _mixed(text, at, MOMENT if first else pa.float64(), origin)
    if any(t is not None for t in moments):
        return pa.array(moments, pa.int64()).take(coded.indices).cast(MOMENT)
    return _finite(pa.array(numbers, pa.float64()).take(coded.indices), text, origin)


def _finite(numbers: pa.Array, values: pa.Array, origin: Origin) -> pa.Array:
    """Numbers with a null in place of NaN; infinite ones are refused."""
    numbers = pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers)
    at = pc.index(pc.is_inf(numbers), True).as_py()
    if at >= 0:
        raise origin.error("is infinite", at, values[at].as_py(), _FIX_INFINITE)
    return numbers


def _in_range(moments: pa.Array, values: pa.Array, origin: Origin) -> pa.Array:
    """Moments of the years 1 to 9999: others have no text."""
    whole = moments.cast(pa.int64())
    outside = pc.or_(pc.less(whole, MOMENTS[0]), pc.greater(whole, MOMENTS[1]))
    at = pc.index(outside, True).as_py()
    if at >= 0:
        shown = values[at].cast(pa.string()).as_py()
        raise origin.error("is outside of the years 1 to 9999", at, shown, _FIX_CELL)
    return moments


def _mixed(values: pa.Array, at: int, before: pa.DataType, origin: Origin) -> UserError:
    return origin.error(
        f"mixes numbers with dates or times: {_kind_name(before)} come first, another kind",
        at,
        values[at].as_py(),
        _FIX_MIXED,
    )


def _kind_name(kind: pa.DataType) -> str:
    return "dates or times" if pa.types.is_timestamp(kind) else "numbers"


def _as_kind(chunk: pa.Array, kind: pa.DataType) -> pa.Array:
    """A chunk in the column's type; only one without any value has another."""
    return chunk if chunk.type == kind else pa.nulls(len(chunk), kind)
