"""From the stored types of a file to the five column types, with errors that name the row."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lfm4ads_tf.data.sources.origin import Origin
from lfm4ads_tf.features.value_texts import exact_limit, inexact, plain_texts, value_texts

ColumnType = Literal["string", "int", "float", "strings", "floats"]

ARROW_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "strings": pa.list_(pa.string()),
    "floats": pa.list_(pa.float64()),
}

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
NAN = re.compile(r"[+-]?nan", re.IGNORECASE)
_INFINITY = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
_LARGEST_EXPONENT = 400
_TRUTH = {"true": 1, "True": 1, "TRUE": 1, "false": 0, "False": 0, "FALSE": 0}

_LOG = logging.getLogger(__name__)

_FIX_NUMBER = (
    "correct the cell, or leave it empty when the value is missing; a column of texts takes a "
    "feature of a kind that reads text, such as vocabulary or hashed."
)
_FIX_INFINITE = "replace it by a finite number, or leave the cell empty."
_FIX_TYPE = "store the column as plain numbers or text (times as integers)."


def convert_column(
    column: pa.ChunkedArray, kind: ColumnType, *, path: Path, name: str, list_separator: str
) -> pa.ChunkedArray:
    """Converts one column of one file.

    Args:
        column: The values as the file holds them, (rows,).
        kind: The wanted column type.
        path: The file, for messages.
        name: The column, for messages.
        list_separator: Where a text is split when a list is wanted.

    Returns:
        The values in the Arrow type of `kind`, (rows,); a missing scalar is null, a missing list
        is empty.

    Raises:
        UserError: A value does not fit; the message names row, column, file and value.
    """
    if kind in ("string", "strings"):
        _warn_inexact(column, path, name)
    chunks = []
    rows = 0
    for chunk in column.chunks:
        origin = Origin(path, name, rows)
        chunks.append(_convert(plain_array(chunk), kind, origin, list_separator))
        rows += len(chunk)
    return pa.chunked_array(chunks, type=ARROW_TYPES[kind])


def _warn_inexact(column: pa.ChunkedArray, path: Path, name: str) -> None:
    """Says how many integers a column of floats may have merged with their neighbours."""
    kind = column.type
    while is_list(kind):
        kind = kind.value_type
    if not pa.types.is_floating(kind):
        return
    flat = [_list_parts(chunk)[1] if is_list(chunk.type) else chunk for chunk in column.chunks]
    count = sum(inexact(chunk) for chunk in flat if not is_list(chunk.type))
    if count:
        limit = exact_limit(kind)
        _LOG.warning(
            "column '%s' of '%s' holds %d integers of %d or more as %d-bit floats, which cannot "
            "tell %d from %d: different keys may have become one; store integers or text",
            name,
            path,
            count,
            limit,
            kind.bit_width,
            limit,
            limit + 1,
        )


def _convert(array: pa.Array, kind: str, origin: Origin, separator: str) -> pa.Array:
    scalar: Callable[[pa.Array, Origin, np.ndarray | None], pa.Array] = {
        "string": _to_string,
        "int": _to_int,
        "float": _to_float,
        "strings": _to_string,
        "floats": _to_float,
    }[kind]
    if kind not in ("strings", "floats"):
        return scalar(single_values(array, origin) if is_list(array.type) else array, origin, None)
    if not is_list(array.type):
        if kind == "floats" and is_number(array.type):
            return _listed(_to_float(array, origin, None))
        if kind == "floats" and not (is_binary(array.type) or pa.types.is_string(array.type)):
            raise origin.type_error(array.type, kind, _FIX_TYPE)
        array = pc.split_pattern(_stored_text(array, origin, None), separator)
    offsets, elements = _list_parts(array)
    row_of = np.repeat(np.arange(len(array)), np.diff(offsets))  # (elements,)
    elements = scalar(plain_array(elements), origin, row_of)
    if kind == "strings":
        elements = pc.fill_null(elements, "")
    elif elements.null_count:
        at = pc.index(pc.is_null(elements), True).as_py()
        raise origin.error(
            "has a missing number inside a list", int(row_of[at]), None, "fill it in."
        )
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), elements)


def plain_array(array: pa.Array) -> pa.Array:
    """Decodes dictionaries, extension types, views and typeless nulls."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_null(array.type) or pa.types.is_large_string(array.type):
        return array.cast(pa.string())
    if pa.types.is_string_view(array.type):
        return array.cast(pa.string())
    return array


def is_list(kind: pa.DataType) -> bool:
    """Whether a type is a list of any size."""
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def is_binary(kind: pa.DataType) -> bool:
    """Whether a type is bytes."""
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def _list_parts(array: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Returns offsets (rows + 1,) and elements; a null list counts as empty."""
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    offsets = np.zeros(len(array) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return offsets, array.flatten()


def single_values(array: pa.Array, origin: Origin) -> pa.Array:
    """Turns lists of at most one value into scalars; an empty list is null."""
    offsets, elements = _list_parts(array)
    lengths = np.diff(offsets)
    if lengths.size and lengths.max() > 1:
        at = int(np.argmax(lengths > 1))
        raise origin.error(
            f"holds {lengths[at]} values where one is expected",
            at,
            array[at].as_py(),
            "declare the column as a list (multi-valued), or keep one value.",
        )
    return plain_array(elements.take(pa.array(offsets[:-1], pa.int64(), mask=lengths == 0)))


def _listed(array: pa.Array) -> pa.Array:
    """Turns scalars into lists of one value; a null becomes an empty list."""
    valid = pc.is_valid(array).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(valid)])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), array.drop_null())


def _row(index: int, row_of: np.ndarray | None) -> int:
    return index if row_of is None else int(row_of[index])


def _refuse_first(
    bad: pa.Array, array: pa.Array, origin: Origin, row_of: np.ndarray | None, what: str, fix: str
) -> None:
    """Raises for the first row where the mask `bad` is true, if any."""
    at = pc.index(bad, True).as_py()
    if at >= 0:
        raise origin.error(what, _row(at, row_of), array[at].as_py(), fix)


def _to_string(array: pa.Array, origin: Origin, row_of: np.ndarray | None) -> pa.Array:
    return plain_texts(_stored_text(array, origin, row_of))


def _stored_text(array: pa.Array, origin: Origin, row_of: np.ndarray | None) -> pa.Array:
    """Text as it stands in the file, and the text of other values; an empty one is null."""
    if is_binary(array.type):
        array = decode_text(array, origin, row_of)
    elif not pa.types.is_string(array.type):
        try:
            return value_texts(array)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise origin.type_error(array.type, "string", _FIX_TYPE) from error
    return pc.if_else(pc.equal(array, ""), pa.scalar(None, pa.string()), array)


def decode_text(array: pa.Array, origin: Origin, row_of: np.ndarray | None) -> pa.Array:
    """Bytes as text.

    Raises:
        UserError: They are not UTF-8.
    """
    try:
        return pc.cast(pc.cast(array, pa.binary()), pa.string())
    except pa.ArrowInvalid as error:
        for index, value in enumerate(array.to_pylist()):
            try:
                (value or b"").decode("utf-8")
            except UnicodeDecodeError:
                raise origin.error(
                    "is not UTF-8 text",
                    _row(index, row_of),
                    value[:80],
                    "store the text in UTF-8.",
                ) from error
        raise


def _to_float(array: pa.Array, origin: Origin, row_of: np.ndarray | None) -> pa.Array:
    if is_binary(array.type):
        array = decode_text(array, origin, row_of)
    if pa.types.is_string(array.type):
        numbers = _parse(array, pa.float64(), parse_float, "is not a number", origin, row_of)
    elif is_number(array.type):
        numbers = pc.cast(array, pa.float64(), safe=False)
    else:
        raise origin.type_error(array.type, "float", _FIX_TYPE)
    numbers = pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers)
    _refuse_first(pc.is_inf(numbers), array, origin, row_of, "is infinite", _FIX_INFINITE)
    return numbers


def _to_int(array: pa.Array, origin: Origin, row_of: np.ndarray | None) -> pa.Array:
    if is_binary(array.type):
        array = decode_text(array, origin, row_of)
    what = "is not a 64-bit integer"
    if pa.types.is_string(array.type):
        return _parse(array, pa.int64(), _parse_int, what, origin, row_of)
    if not is_number(array.type):
        raise origin.type_error(array.type, "int", _FIX_TYPE)
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
    try:
        return pc.cast(array, pa.int64())
    except pa.ArrowInvalid as error:
        for index, value in enumerate(array.to_pylist()):
            if value is not None and _parse_int(str(value)) is None:
                raise origin.error(what, _row(index, row_of), value, _FIX_NUMBER) from error
        raise


def is_number(kind: pa.DataType) -> bool:
    """Whether a type is a number or a truth value."""
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    )


def _parse(
    text: pa.Array,
    kind: pa.DataType,
    parse_one: Callable[[str], float | int | None],
    what: str,
    origin: Origin,
    row_of: np.ndarray | None,
) -> pa.Array:
    """Parses text: by one cast when all of it is plain, else each distinct text by itself."""
    text = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
    try:
        # Arrow reads '0x10' as 16, but only into integers.
        if not pc.any(pc.match_substring(text, "x", ignore_case=True)).as_py():
            return pc.cast(text, kind)
    except pa.ArrowInvalid:
        pass
    coded = text.dictionary_encode()
    known = coded.dictionary.to_pylist()
    parsed = [parse_one(value.strip()) for value in known]
    missing = [not value.strip() or bool(NAN.fullmatch(value.strip())) for value in known]
    truths = [_TRUTH.get(value.strip()) for value in known]
    # A column of truth values is 1 and 0, as it is in Parquet; one among numbers is a mistake.
    if all(t is not None or m for t, m in zip(truths, missing, strict=True)):
        parsed = list(truths)
    bad = [p is None and not m for p, m in zip(parsed, missing, strict=True)]
    if any(bad):
        mask = pa.array(bad).take(coded.indices)
        at = pc.index(mask, True).as_py()
        infinite = _INFINITY.fullmatch(text[at].as_py().strip())
        raise origin.error(
            "is infinite" if infinite else what,
            _row(at, row_of),
            text[at].as_py(),
            _FIX_INFINITE if infinite else _FIX_NUMBER,
        )
    return pa.array(parsed, kind).take(coded.indices)


def parse_float(text: str) -> float | None:
    """The number that a text is, None if it is none."""
    # An overflow such as '1e999' becomes inf here, and is refused as infinite by the caller.
    return float(text) if _NUMBER.fullmatch(text) or _INFINITY.fullmatch(text) else None


def _parse_int(text: str) -> int | None:
    """Returns the integer, also for '720.0' and '1e3', or None where there is none in 64 bits."""
    if not _NUMBER.fullmatch(text):
        return None
    number = Decimal(text)
    # Without the bound, int(Decimal('1e999999999')) would try to build all its digits.
    if number.adjusted() > _LARGEST_EXPONENT or number != number.to_integral_value():
        return None
    return int(number) if -(2**63) <= number < 2**63 else None
