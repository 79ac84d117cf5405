"""The one text of a value, whatever stored it: keys and vocabularies compare these texts."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_WHOLE = r"^-?(0|[1-9][0-9]*)\.0+$"
# A mantissa with a point, or an exponent with a sign: what programs print for a float. `1e3` and
# `12E5` are left alone, for hexadecimal codes look like that.
_SCIENTIFIC = r"^-?[0-9](\.[0-9]+[eE][+-]?|[eE][+-])[0-9]{1,3}$"
_SPELLED = {"True": "true", "TRUE": "true", "False": "false", "FALSE": "false", "-0": "0"}
_MARKS = (b".0", b"e+", b"E+", b"e-", b"E-")

_EXACT_BITS = {16: 11, 32: 24, 64: 53}  # bits of a float -> bits of its significand


def value_texts(array: pa.Array) -> pa.Array:
    """The text of each stored value.

    An integral number has its integer text, whether an integer, a float or a decimal holds it:
    `7`, `10000000000`, and `0` for -0.0. Another number has the shortest text that reads back as
    itself, as Python prints it: `0.1` (of a 32-bit float too), `1e-05`. A truth value is `true` or
    `false`. A text is read by `plain_texts`.

    Args:
        array: (N,) numbers, truth values, texts, dates or times.

    Returns:
        (N,) string; null where the value is missing or NaN.

    Raises:
        pa.ArrowException: The type has no text.
    """
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if pa.types.is_string(kind):
        return plain_texts(array)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or _is_binary(kind):
        return plain_texts(pc.cast(array, pa.string()))
    if pa.types.is_floating(kind):
        return _of_floats(array)
    if pa.types.is_decimal(kind):
        return _of_decimals(array)
    return pc.cast(array, pa.string())


def plain_texts(array: pa.Array) -> pa.Array:
    """Texts, with those of an integral number or a truth value replaced by its one text.

    `7.0`, `7.00`, `7.0e+00` and `7.0E0` are `7`; `1e+10` is `10000000000`; `True` and `TRUE` are
    `true`. Everything else is text as it stands: `007`, `+7`, `7.50`, `1e3`.

    Args:
        array: (N,) string.

    Returns:
        (N,) string.
    """
    raw = _bytes_of(array)
    if any(word.encode() in raw for word in (*_SPELLED, "-0")):
        words = pa.array(list(_SPELLED), pa.string())
        place = pc.index_in(array, value_set=words)
        array = pc.coalesce(pa.array(list(_SPELLED.values()), pa.string()).take(place), array)
    if not any(mark in raw for mark in _MARKS) and not (b"." in raw and b"E" in raw.upper()):
        return array
    whole = pc.fill_null(pc.match_substring_regex(array, _WHOLE), False)
    if pc.any(whole).as_py():
        cut = pc.replace_substring_regex(array, r"\.0+$", "")
        cut = pc.if_else(pc.equal(cut, "-0"), "0", cut)
        array = pc.if_else(whole, cut, array)
    scientific = pc.fill_null(pc.match_substring_regex(array, _SCIENTIFIC), False)
    return _replaced(array, array, scientific, _of_scientific)


def value_text(value: Any) -> str:
    """The text of one Python or NumPy value: that of `value_texts`.

    Raises:
        ValueError: An integer has too many digits to be printed.
        TypeError: The value is no number, truth value or text.
    """
    if isinstance(value, str):
        if value in _SPELLED:
            return _SPELLED[value]
        if re.fullmatch(_WHOLE, value, re.ASCII):
            cut = value.partition(".")[0]
            return "0" if cut == "-0" else cut
        return _of_scientific(value) if re.fullmatch(_SCIENTIFIC, value, re.ASCII) else value
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, int | np.integer):
        return str(int(value))
    if isinstance(value, float | np.floating):
        return _of_float(value)
    if isinstance(value, Decimal):
        return _of_decimal(value)
    raise TypeError(type(value).__name__)


def inexact(array: pa.Array) -> int:
    """How many floats are integers from where on the type skips integers.

    Args:
        array: (N,) floats.
    """
    limit = 2.0 ** _EXACT_BITS[array.type.bit_width]
    values = array.to_numpy(zero_copy_only=False)
    with np.errstate(invalid="ignore"):
        return int((np.isfinite(values) & (np.abs(values) >= limit)).sum())


def exact_limit(kind: pa.DataType) -> int:
    """The first integer that a type of floats cannot tell from its neighbour."""
    return int(2 ** _EXACT_BITS[kind.bit_width])


def _of_floats(array: pa.Array) -> pa.Array:
    values = array.to_numpy(zero_copy_only=False)  # NaN where null
    missing = np.isnan(values)
    size = np.abs(values).astype(np.float64)
    with np.errstate(invalid="ignore"):
        whole = np.isfinite(values) & (np.floor(values) == values) & (size < 2.0**63)
    integers = pa.array(np.where(whole, values, 0).astype(np.int64), mask=missing | ~whole)
    texts = pc.cast(integers, pa.string())
    other = ~(whole | missing)
    if not other.any():
        return texts
    # Arrow prints floats as Python does, but for large and small ones, and those of 16 bits.
    alike = other & (size >= 1e-4) & (size < 1e10) & (array.type.bit_width > 16)
    if alike.any():
        printed = pc.cast(pc.if_else(pa.array(alike), array, None), pa.string())
        texts = pc.coalesce(texts, printed)
    rest = pa.array(other & ~alike)
    return _replaced(texts, array, rest, _of_float, lambda picked: picked.to_numpy())


def _of_decimals(array: pa.Array) -> pa.Array:
    texts = pc.cast(array, pa.string())
    if array.type.scale == 0:
        return texts
    whole = pc.match_substring_regex(texts, _WHOLE)
    cut = pc.replace_substring_regex(texts, r"\.0+$", "")
    rest = pc.fill_null(pc.invert(whole), False)
    return _replaced(cut, texts, rest, lambda text: _of_decimal(Decimal(text)))


def _replaced(
    texts: pa.Array,
    values: pa.Array,
    chosen: pa.Array,
    text: Callable[[Any], str],
    listed: Callable[[pa.Array], Any] = pa.Array.to_pylist,
) -> pa.Array:
    """Texts (N,), those of the chosen rows computed one by one from the distinct values."""
    if not pc.any(chosen).as_py():
        return texts
    coded = values.filter(chosen).dictionary_encode()
    printed = pa.array([text(value) for value in listed(coded.dictionary)], pa.string())
    return pc.replace_with_mask(texts, chosen, printed.take(coded.indices))


def _of_float(value: Any) -> str:
    if np.isfinite(value) and value == np.floor(value):
        return str(int(value))
    # NumPy's scalars print the shortest digits of their own width, but a 32-bit 0.0001 as 1e-04.
    return repr(float(str(value)) if isinstance(value, np.floating) else float(value))


def _of_scientific(text: str) -> str:
    """The text of the 64-bit float that was printed; the text itself where there is none."""
    number = float(text)
    lost = number == 0 and any(digit in "123456789" for digit in re.split("[eE]", text)[0])
    return text if lost or not np.isfinite(number) else _of_float(number)


def _of_decimal(value: Decimal) -> str:
    if value == value.to_integral_value():
        return str(int(value))
    printed = repr(float(value))
    # The text of the equal float, where there is one: a decimal column and a float column agree.
    return printed if Decimal(printed) == value else format(value, "f").rstrip("0")


def _is_binary(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def _bytes_of(array: pa.Array) -> bytes:
    """All texts of an array in one piece, to be searched at once."""
    _, offsets, data = array.buffers()
    if data is None or not len(array):
        return b""
    ends = np.frombuffer(offsets, np.int32)[[array.offset, array.offset + len(array)]]
    return bytes(data.slice(int(ends[0]), int(ends[1] - ends[0])).to_pybytes())
