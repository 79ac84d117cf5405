"""What a request to an export holds, and how rows become requests."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from lfm4ads_tf.features import raw_values
from lfm4ads_tf.features.raw_types import RawType
from lfm4ads_tf.features.request_name import request_names


class RequestSchema:
    """The inputs of one export, in both forms that it accepts.

    As `tf.Example` (signature `serving_default`), features have the raw column's name, and a
    missing value is an absent feature. As raw tensors (signature `predict`), inputs have
    the column's `request_name`, and missing values are:

    | column | tensor | missing |
    |---|---|---|
    | text | string (B,) | "" |
    | integer | int64 (B,) | -1 |
    | number | float32 (B,) | NaN; 0 for a statistic |
    | list of texts | string (B, L) | rows are padded with "", anywhere in the row |
    | weights of such a list | float32 (B, L), the L of its list | padded with 0 |
    | vector | float32 (B, size) | zeros |
    | representation | float32 (B, d) | zeros |

    A dense matrix is what a Predict request can carry; padding has no effect on the result,
    because an empty text is a missing value and is dropped from its list.

    Args:
        columns: Raw column -> type, the columns that the export reads.
        representations: Name -> width d of the stored representations that it reads.

    Raises:
        UserError: Two names cannot be told apart in a request.
    """

    def __init__(self, columns: Mapping[str, RawType], representations: Mapping[str, int]) -> None:
        self.columns = dict(columns)
        self.representations = dict(representations)
        self.names = request_names([*columns, *representations])

    def tensor_specs(self) -> dict[str, tf.TensorSpec]:
        """Request name -> type of the tensor in the signature `predict`."""
        dtypes = {"text": tf.string, "texts": tf.string, "integer": tf.int64}
        specs: dict[str, tf.TensorSpec] = {}
        for column, raw_type in self.columns.items():
            shape: list[int | None] = [None]
            if raw_type.kind in ("texts", "numbers"):
                shape.append(None)
            elif raw_type.kind == "vector":
                shape.append(raw_type.size)
            name = self.names[column]
            specs[name] = tf.TensorSpec(shape, dtypes.get(raw_type.kind, tf.float32), name=name)
        for representation, width in self.representations.items():
            name = self.names[representation]
            specs[name] = tf.TensorSpec([None, width], tf.float32, name=name)
        return specs

    def part(self, names: Collection[str]) -> RequestSchema:
        """Some of the columns and representations."""
        return RequestSchema(
            {column: raw_type for column, raw_type in self.columns.items() if column in names},
            {name: width for name, width in self.representations.items() if name in names},
        )

    def tensors(
        self, columns: raw_values.Columns, representations: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Rows as one request to `predict`.

        Args:
            columns: Raw column -> values (B,), see `raw_values.Columns`.
            representations: Name -> (B, d).

        Returns:
            Request name -> array; texts are objects of type bytes.
        """
        arrays = {}
        for column, raw_type in self.columns.items():
            held = _canonical(column, raw_type, raw_values.column_of(columns, column))
            arrays[self.names[column]] = (
                _padded(held, raw_type) if isinstance(held, tuple) else held
            )
        for name in self.representations:
            arrays[self.names[name]] = np.asarray(representations[name], np.float32)
        return arrays

    def examples(
        self, columns: raw_values.Columns, representations: Mapping[str, np.ndarray]
    ) -> list[bytes]:
        """Rows as serialized `tf.Example`s, B of them; arguments as in `tensors`."""
        held = {
            column: _canonical(column, raw_type, raw_values.column_of(columns, column))
            for column, raw_type in self.columns.items()
        }
        first = next(iter(held.values()))
        serialized = []
        for row in range(raw_values.row_count(first)):
            example = tf.train.Example()
            for column, values in held.items():
                _put(example, column, self.columns[column], values, row)
            for name in self.representations:
                vector = np.asarray(representations[name][row], np.float32)
                if vector.any():
                    example.features.feature[name].float_list.value.extend(vector.tolist())
            serialized.append(example.SerializeToString(deterministic=True))
        return serialized


def _canonical(column: str, raw_type: RawType, values: Any) -> Any:
    """A column as an array (B,) or (B, size), or flat values and row splits of a list."""
    if raw_type.kind == "text":
        return _bytes(raw_values.texts(values))
    if raw_type.kind == "integer":
        return raw_values.integers(values)
    if raw_type.kind == "vector":
        return raw_values.vectors(values, raw_type.size, column)
    if raw_type.kind == "number":
        return _float32(raw_values.numbers(values))
    flat, splits = raw_values.lists(values)
    if raw_type.kind == "texts":
        return _bytes(raw_values.texts(flat)), splits
    return _float32(raw_values.numbers(flat)), splits


def _bytes(texts: Any) -> np.ndarray:
    """Texts as UTF-8, (M,) objects."""
    out = np.empty(len(texts), object)
    out[:] = [text.encode() for text in texts.to_pylist()]
    return out


def _float32(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _padded(held: tuple[np.ndarray, np.ndarray], raw_type: RawType) -> np.ndarray:
    """Lists as a matrix (B, L), L the length of the longest and at least 1."""
    flat, splits = held
    lengths = np.diff(splits)
    width = max(1, int(lengths.max(initial=0)))
    if raw_type.kind == "texts":
        matrix = np.full((len(lengths), width), b"", object)
    else:
        matrix = np.zeros((len(lengths), width), np.float32)
    matrix[np.arange(width) < lengths[:, np.newaxis]] = flat[splits[0] : splits[-1]]
    return matrix


def _put(example: tf.train.Example, column: str, raw_type: RawType, values: Any, row: int) -> None:
    """Adds one value to an example, unless it is missing."""
    if isinstance(values, tuple):
        flat, splits = values
        items = flat[splits[row] : splits[row + 1]]
        if not len(items):
            return
        feature = example.features.feature[column]
        if raw_type.kind == "texts":
            feature.bytes_list.value.extend(items)
        else:
            feature.float_list.value.extend(items.tolist())
        return
    value = values[row]
    if raw_type.kind == "text" and value:
        example.features.feature[column].bytes_list.value.append(value)
    elif raw_type.kind == "integer" and value != -1:
        example.features.feature[column].int64_list.value.append(int(value))
    elif raw_type.kind == "number" and not np.isnan(value):
        example.features.feature[column].float_list.value.append(float(value))
    elif raw_type.kind == "vector" and value.any():
        example.features.feature[column].float_list.value.extend(value.tolist())
