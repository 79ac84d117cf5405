"""Raw rows as a caller has them, checked value by value against the types of the feature spec."""

from __future__ import annotations

import itertools
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lfm4ads_tf.errors import nearest
from lfm4ads_tf.export.wire.serving_error import ServingError
from lfm4ads_tf.features.missing_values import MissingValues
from lfm4ads_tf.features.raw_types import RawType
from lfm4ads_tf.features.request_name import EXCLUDE
from lfm4ads_tf.features.value_texts import value_text, value_texts

Rows: TypeAlias = "Sequence[Mapping[str, Any]] | Mapping[str, Any] | pa.Table"
"""A list of rows (column -> value), a mapping column -> values of all rows, or an Arrow table."""

_FLOAT_MAX = float(np.finfo(np.float32).max)


class RawRows:
    """N rows by column.

    Args:
        rows: See `Rows`. A column that some rows of a list lack is missing there.

    Raises:
        ServingError: There is no row, or columns differ in length.
    """

    def __init__(self, rows: Rows) -> None:
        self.columns: dict[str, Any] = {}
        if isinstance(rows, pa.Table):
            for name in rows.column_names:
                self.columns[name] = rows[name].combine_chunks()
        elif isinstance(rows, Mapping):
            for name, values in rows.items():
                if isinstance(values, tuple) and len(values) == 2 and not np.isscalar(values[1]):
                    values = _list_array(*values)  # see `raw_values.Columns`
                if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
                    raise _invalid(
                        f"Column '{name}' must hold the values of all rows.",
                        received=repr(values)[:200],
                        fix="give a list or an array; a single row is a list of one mapping",
                    )
                if isinstance(values, pa.ChunkedArray):
                    values = values.combine_chunks()
                self.columns[str(name)] = values
        else:
            listed = list(rows)
            for number, row in enumerate(listed):
                if not isinstance(row, Mapping):
                    raise _invalid(
                        f"Row {number} is no mapping of columns to values.",
                        received=repr(row)[:200],
                    )
            for name in dict.fromkeys(name for row in listed for name in row):
                self.columns[str(name)] = [row.get(name) for row in listed]
        lengths = {name: len(values) for name, values in self.columns.items()}
        self.count = next(iter(lengths.values()), 0)
        for name, length in lengths.items():
            if length != self.count:
                raise _invalid(
                    "The columns have different numbers of rows.",
                    received=f"{self.count} in '{next(iter(lengths))}', {length} in '{name}'",
                )
        if not self.count:
            raise _invalid("A request needs at least one row.", received="no rows")

    def refuse_unknown(self, known: Iterable[str]) -> None:
        """Refuses a column that nothing reads: it is a misspelt one, as a rule.

        Args:
            known: Columns that the model, the spec or its keys and labels name.

        Raises:
            ServingError: The nearest known column is named.
        """
        names = dict.fromkeys(known)
        for name in self.columns:
            if name not in names:
                raise _invalid(
                    f"The feature spec knows no column '{name}'.{nearest(name, names)}",
                    fix="correct the name, or leave the column out",
                )

    def take_out(self, missing: MissingValues) -> None:
        """Makes texts that stand for a missing value missing, as the reader of files does.

        Numbers that do, and texts inside of lists, are left to the graph, which knows them too.

        Args:
            missing: The markers of the feature spec.
        """
        for name, values in self.columns.items():
            markers = missing.of(name)
            if markers is None:
                continue
            texts = set(markers.texts)
            if isinstance(values, pa.Array):
                if pa.types.is_string(values.type):
                    marked = pc.is_in(values, value_set=pa.array(markers.texts, pa.string()))
                    self.columns[name] = pc.if_else(marked, pa.scalar(None, pa.string()), values)
            elif not isinstance(values, np.ndarray) or values.dtype.kind in "OUS":
                self.columns[name] = [
                    None if isinstance(v, str | bytes) and _spelt(v) in texts else v for v in values
                ]

    def column(self, name: str, of: RawType, reader: str) -> Any:
        """One column in the container that `RequestSchema` takes.

        Args:
            name: The column.
            of: Its type.
            reader: Who asks for it, for the message.

        Returns:
            text: Arrow (N,) string; integer: Arrow (N,) int64; number: (N,) float64 with NaN;
            lists and vectors: Arrow (N,) lists, null for a missing vector.

        Raises:
            ServingError: The column is not there, or a value has another type.
        """
        if name not in self.columns:
            raise _invalid(
                f"The rows lack the column '{name}', which {reader} reads."
                + nearest(name, self.columns),
                received=f"columns {', '.join(self.columns)}",
                fix="add it; None stands for a missing value",
            )
        values = self.columns[name]
        converted = _whole(values, of)
        if converted is None:
            converted = _one_by_one(name, of, values)
        if of.kind == "vector":
            _check_sizes(name, of.size, converted)
        return converted

    def vectors(self, name: str, size: int, reader: str) -> np.ndarray:
        """A representation, (N, size) float32; zeros where it is missing."""
        column = self.column(name, RawType("vector", size), reader)
        out = np.zeros((self.count, size), np.float32)
        present = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False) > 0
        out[present] = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, size)  # (P, d)
        return out


def with_excluded(rows: Rows, exclude: Sequence[Sequence[str]]) -> Rows:
    """Rows with the column `exclude` added.

    Args:
        rows: N rows.
        exclude: N lists of item keys.
    """
    lists = [list(keys) for keys in exclude]
    if isinstance(rows, pa.Table):
        return dict(zip(rows.column_names, rows.columns, strict=True)) | {EXCLUDE: lists}
    if isinstance(rows, Mapping):
        return {**rows, EXCLUDE: lists}
    if len(lists) != len(rows):
        raise _invalid(
            "`exclude` must have one list per row.",
            received=f"{len(lists)} lists for {len(rows)} rows",
        )
    return [{**row, EXCLUDE: keys} for row, keys in zip(rows, lists, strict=True)]


def check_weights(values: str, weights: str, columns: Mapping[str, Any]) -> None:
    """Refuses a row whose list and whose weights differ in length.

    Args:
        values, weights: The two columns.
        columns: Column -> Arrow lists.
    """
    if values not in columns or weights not in columns:
        return
    lengths = [
        pc.fill_null(pc.list_value_length(columns[c]), 0).to_numpy(zero_copy_only=False)
        for c in (values, weights)
    ]
    wrong = lengths[0] != lengths[1]
    if wrong.any():
        row = int(np.argmax(wrong))
        raise _invalid(
            f"'{weights}' must have one weight per value of '{values}'.",
            received=f"{lengths[1][row]} weights for {lengths[0][row]} values in row {row}",
        )


def _invalid(what: str, *, received: object = None, fix: str | None = None) -> ServingError:
    return ServingError("INVALID_ARGUMENT", what, received=received, fix=fix)


def _list_array(values: Any, offsets: Any) -> Any:
    """Flat values and row splits as lists."""
    try:
        flat = values if isinstance(values, pa.Array) else pa.array(values, from_pandas=True)
    except (OverflowError, pa.ArrowException):  # such as an integer beyond 64 bits
        return [list(values[a:b]) for a, b in itertools.pairwise(offsets)]
    return pa.LargeListArray.from_arrays(pa.array(np.asarray(offsets, np.int64)), flat)


def _whole(values: Any, raw_type: RawType) -> Any:
    """A column that is surely right by its type alone; None when every value has to be looked at.

    Lists of numbers with a missing one inside, and numbers too large, are left to be found.
    """
    if isinstance(values, np.ndarray) and values.dtype.kind in "iuf":
        if values.ndim == 2 and raw_type.kind in ("vector", "numbers"):
            flat = values.astype(np.float64)
            if _fits(flat) and np.isfinite(flat).all():
                splits = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
                return pa.ListArray.from_arrays(splits, flat.reshape(-1))
        if values.ndim == 1 and raw_type.kind == "number" and _fits(values):
            return np.where(np.isinf(values), np.nan, values.astype(np.float64))
        if values.ndim == 1 and raw_type.kind in ("text", "integer"):
            return _whole(pa.array(values, from_pandas=True), raw_type)
        return None
    if not isinstance(values, pa.Array):
        return None
    kind = values.type
    if raw_type.kind == "text" and (pa.types.is_string(kind) or _is_number(kind)):
        return value_texts(values)
    if raw_type.kind == "integer" and pa.types.is_integer(kind) and kind != pa.uint64():
        return values.cast(pa.int64())
    if raw_type.kind == "number" and _is_number(values.type):
        floats = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return np.where(np.isinf(floats), np.nan, floats) if _fits(floats) else None
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        inside = values.type.value_type
        if raw_type.kind == "texts" and (pa.types.is_string(inside) or _is_number(inside)):
            lengths = pc.fill_null(pc.list_value_length(values), 0)
            splits = np.concatenate([[0], np.cumsum(lengths.to_numpy(zero_copy_only=False))])
            return _list_array(value_texts(values.flatten()), splits)
        if raw_type.kind in ("numbers", "vector") and _is_number(inside):
            flat = values.flatten()
            floats = flat.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
            if not flat.null_count and _fits(floats) and np.isfinite(floats).all():
                return values.cast(pa.large_list(pa.float64()))
    return None


def _is_number(data_type: pa.DataType) -> bool:
    return bool(pa.types.is_integer(data_type) or pa.types.is_floating(data_type))


def _fits(values: np.ndarray) -> bool:
    """Whether no finite number is beyond float32."""
    sizes = np.abs(values.astype(np.float64))
    return not (np.isfinite(sizes) & (sizes > _FLOAT_MAX)).any()


def _one_by_one(name: str, raw_type: RawType, values: Any) -> Any:
    """A column whose values are checked each; a wrong one is named with its row."""
    listed = values.to_pylist() if isinstance(values, pa.Array) else list(values)
    convert: Callable[[Any], Any] = {
        "text": _text,
        "integer": _integer,
        "number": _number,
        "texts": _texts,
        "numbers": _numbers,
        "vector": _numbers,
    }[raw_type.kind]
    converted = []
    for row, value in enumerate(listed):
        try:
            converted.append(convert(value))
        except ValueError as error:
            raise _invalid(
                f"Column '{name}' must hold {raw_type}: row {row} {error}.",
                received=_shown(value),
                fix="correct the value; None stands for a missing one",
            ) from error
    if raw_type.kind == "number":
        return np.array(converted, np.float64)
    if raw_type.kind == "integer":
        return pa.array(converted, pa.int64())
    if raw_type.kind == "text":
        return pa.array(converted, pa.string())
    inside = pa.string() if raw_type.kind == "texts" else pa.float64()
    return pa.array(converted, pa.list_(inside))


def _shown(value: Any) -> str:
    try:
        return repr(value)[:200]
    except ValueError:  # Python prints no integer of more than 4,300 digits
        return f"a {type(value).__name__} of too many digits"


def _spelt(value: str | bytes) -> str:
    """A text as a string."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _missing(value: Any) -> bool:
    return value is None or (
        isinstance(value, float | np.floating | Decimal) and bool(value != value)
    )


def _text(value: Any) -> str | None:
    if _missing(value):
        return None
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise ValueError("is not UTF-8") from None
    try:
        # As the training rows' values became texts.
        return value_text(value)
    except TypeError:
        raise ValueError(f"is of type {type(value).__name__}") from None
    except ValueError:
        raise ValueError("has too many digits for a text") from None


def _integer(value: Any) -> int | None:
    number = _number(value)
    if number != number:
        return None
    if number != int(number):
        raise ValueError("is no integer")
    if not -(2**63) <= int(value) < 2**63:
        raise ValueError("is beyond 64 bits")
    return int(value)


def _number(value: Any) -> float:
    """NaN for None, NaN and infinity: the three are one in a request, as the graph has it."""
    if _missing(value) or (isinstance(value, float | np.floating) and np.isinf(value)):
        return float("nan")
    if isinstance(value, numbers.Real | np.bool_ | Decimal):
        try:
            number = float(value)
        except OverflowError:
            number = np.inf
        if abs(number) > _FLOAT_MAX:
            raise ValueError("is beyond float32")
        return number
    raise ValueError(f"is of type {type(value).__name__}")


def _listed(value: Any) -> list[Any]:
    if isinstance(value, np.ndarray | list | tuple):
        return list(value)
    raise ValueError(f"is of type {type(value).__name__}, not a list")


def _texts(value: Any) -> list[str]:
    return [] if _missing(value) else [_text(v) or "" for v in _listed(value)]


def _numbers(value: Any) -> list[float] | None:
    if _missing(value):
        return None
    listed = _listed(value)
    inside = [_number(v) for v in listed]
    for given, number in zip(listed, inside, strict=True):
        if number != number:
            what = "a missing" if given is None or given != given else "an infinite"
            raise ValueError(f"has {what} number inside")
    return inside


def _check_sizes(name: str, size: int, column: pa.Array) -> None:
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    wrong = (lengths != 0) & (lengths != size)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise _invalid(
            f"Column '{name}' must hold vectors of {size} numbers.",
            received=f"{lengths[row]} numbers in row {row}",
            fix="correct the value, or the `size` in the feature spec",
        )
