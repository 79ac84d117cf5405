"""Lists in the cells of text columns: printed by Python or JSON, or joined by a separator."""

from __future__ import annotations

import ast
import json
import logging
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lfm4ads_tf.data.sources.convert import (
    ColumnType,
    is_binary,
    is_list,
    parse_float,
    plain_array,
    single_values,
)
from lfm4ads_tf.data.sources.origin import Origin

_LOG = logging.getLogger(__name__)

_SEPARATORS = {"|": "'|'", ",": "','", ";": "';'", "\t": "a tab", " ": "a space"}
_PRINTED = r"(?s)^\s*(\[.*\]|\(.*\)|\{.*\})\s*$"
_ELEMENT = re.compile(
    r"""\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s,'"\[\](){}]+)\s*(?:,|$)""", re.DOTALL
)
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_WORDS = {"None": None, "null": None, "nan": None, "NaN": None, "True": True, "False": False}
_WORDS |= {"true": True, "false": False}


class Separators:
    """Finds lists that are not joined by the declared separator, over the files of a table.

    A column of lists that holds text is read as printed lists, such as `['a', 'b']` or
    `["a", "b"]`, where every value of a file is one. Where the separator is in no value of any
    file, but another usual one is, `warn` says so.

    Args:
        separator: The declared one.
    """

    def __init__(self, separator: str) -> None:
        self._separator = separator
        self._values: dict[str, int] = {}
        self._others: dict[str, dict[str, int]] = {}
        self._fine: set[str] = set()

    def lists(
        self, column: pa.ChunkedArray, kind: ColumnType, *, path: Path, name: str
    ) -> pa.ChunkedArray:
        """A column of a file, printed lists as lists.

        Args:
            column: Its values as stored.
            kind: What it is read as.
            path: The file, for messages.
            name: The column.

        Raises:
            UserError: A column looks like printed lists, and a value is none.
        """
        if kind not in ("strings", "floats"):
            return column
        listed = is_list(column.type)  # in a record, one text is a list of one
        text = _text(_single(column, path, name) if listed else column)
        if text is None:
            return column
        printed = _printed_lists(text, self._separator, Origin(path, name))
        if printed is not None:
            self._fine.add(name)
            return pa.chunked_array([printed])
        if kind == "strings" and not listed and name not in self._fine:
            self._count(name, text)
        return column

    def warn(self) -> None:
        """Tells of columns whose lists seem to be joined by another separator."""
        for name, others in self._others.items():
            told = {separator: count for separator, count in others.items() if count}
            if name in self._fine or not told:
                continue
            _LOG.warning(
                "column '%s' is read as lists, but the separator '%s' is in none of its %d values, "
                "so each is a list of one; %s: if the values are joined by it, give the table that "
                "`list_separator`",
                name,
                self._separator,
                self._values[name],
                ", ".join(
                    f"{_SEPARATORS[separator]} is in {count} of them"
                    for separator, count in told.items()
                ),
            )

    def _count(self, name: str, text: pa.ChunkedArray) -> None:
        if pc.any(pc.match_substring(text, self._separator)).as_py():
            self._fine.add(name)
            return
        known = pc.sum(pc.not_equal(text, "")).as_py() or 0
        self._values[name] = self._values.get(name, 0) + known
        counts = self._others.setdefault(name, {})
        for other in _SEPARATORS:
            if other != self._separator:
                found = pc.sum(pc.match_substring(text, other)).as_py() or 0
                counts[other] = counts.get(other, 0) + found


def _single(column: pa.ChunkedArray, path: Path, name: str) -> pa.ChunkedArray | None:
    """The values of lists of one, None where a list has several or they are no texts."""
    inside = column.type.value_type
    texts = is_binary(inside) or pa.types.is_string(inside) or pa.types.is_large_string(inside)
    if not texts or (pc.max(pc.list_value_length(column)).as_py() or 0) > 1:
        return None
    return pa.chunked_array([single_values(c, Origin(path, name)) for c in column.chunks])


def _text(column: pa.ChunkedArray | None) -> pa.ChunkedArray | None:
    """A column of text, None where it holds something else."""
    if column is None:
        return None
    chunks = [plain_array(chunk) for chunk in column.chunks]
    try:
        chunks = [c.cast(pa.binary()).cast(pa.string()) if is_binary(c.type) else c for c in chunks]
    except pa.ArrowInvalid:
        return None  # not UTF-8: the conversion names the row
    if not chunks or not all(pa.types.is_string(chunk.type) for chunk in chunks):
        return None
    return pa.chunked_array(chunks, pa.string())


def _printed_lists(text: pa.ChunkedArray, separator: str, origin: Origin) -> pa.Array | None:
    """The lists that all values of a column print, None where they are plain text.

    Raises:
        UserError: Only some values are printed lists, or all have brackets and some are none.
    """
    looks = pc.fill_null(pc.match_substring_regex(text, _PRINTED), False)
    if not pc.any(looks).as_py():
        return None
    coded = text.combine_chunks().dictionary_encode()
    known = coded.dictionary.to_pylist()
    parsed = [[] if not value.strip() else _parse(value) for value in known]
    full = [value for value in known if value.strip()]
    failed = np.array([of is None for of in parsed])
    brackets = [v.strip()[:1] == "[" for v, of in zip(known, parsed, strict=True) if of is not None]
    if not failed.any():
        return _list_array(coded, parsed)
    if not (any(brackets) or all(_bracketed(value, separator) for value in full)):
        return None
    wrong = pc.fill_null(pa.array(failed).take(coded.indices), False)
    at = pc.index(wrong, True).as_py()
    raise origin.error(
        "holds lists with brackets, as a program prints them, but is no list of texts or numbers",
        at,
        text[at].as_py()[:200],
        "write every value as a list of Python or JSON, such as ['a', 'b'] or [\"a\", \"b\"], or "
        f"without brackets and quotes, joined by `list_separator` (here '{separator}').",
    )


def _bracketed(value: str, separator: str) -> bool:
    """Whether a value is in brackets as a whole, and not a row of values in brackets."""

    def whole(piece: str) -> bool:
        return piece.strip().startswith("[") and piece.strip().endswith("]")

    pieces = value.split(separator)
    return whole(value) and (len(pieces) == 1 or not all(map(whole, pieces)))


def _parse(value: str) -> list[Any] | None:
    """The list that a text prints, None if it prints none."""
    text = value.strip()
    if text[0] + text[-1] not in ("[]", "()", "{}"):
        return None
    if text[0] == "[":
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if found is not None:
            plain = all(isinstance(v, str | int | float | None) for v in found)
            return found if plain else None
    return _parse_elements(text[1:-1], one="[{".find(text[0]) >= 0)


def _parse_elements(inner: str, *, one: bool) -> list[Any] | None:
    """The elements between the brackets; `one` without a comma is a list in `[]` and `{}` only."""
    elements: list[Any] = []
    at = 0
    while inner[at:].strip():
        match = _ELEMENT.match(inner, at)
        if match is None:
            return None
        try:
            elements.append(_element(match[1]))
        except (ValueError, SyntaxError):
            return None
        at = match.end()
    return (
        elements if elements and (one or "," in inner) else ([] if one and not elements else None)
    )


def _element(token: str) -> Any:
    """One text, number, truth value or missing value.

    Raises:
        ValueError, SyntaxError: It is none of them.
    """
    if token[0] in "'\"":
        if token[0] == '"':
            try:
                return json.loads(token)
            except ValueError:
                pass
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # an escape that Python does not know
            return ast.literal_eval(token)
    if token in _WORDS:
        return _WORDS[token]
    number = int(token) if _INTEGER.fullmatch(token) else parse_float(token)
    if number is None:
        raise ValueError(token)
    return number


def _list_array(coded: pa.DictionaryArray, parsed: list[list[Any] | None]) -> pa.Array:
    """The lists of all rows; a missing one is empty."""
    lists = [of or [] for of in parsed]
    flat = [value for of in lists for value in of]
    offsets = np.cumsum([0, *map(len, lists)])
    known = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), _elements(flat))
    return known.take(coded.indices)


def _elements(flat: list[Any]) -> pa.Array:
    """Elements in the type that holds all of them, else as their texts."""
    kinds = {type(value) for value in flat if value is not None}
    if kinds in ({int}, {bool}, {float}, {int, float}, {str}):
        try:
            return pa.array(flat, pa.float64() if float in kinds else None)
        except (pa.ArrowInvalid, OverflowError):
            pass
    return pa.array(
        [v if v is None or isinstance(v, str) else json.dumps(v) for v in flat], pa.string()
    )
