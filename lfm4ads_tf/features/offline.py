"""Encoding of columns held in memory, chunk by chunk."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features import raw_values
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.raw_types import RawType

_Bag = tuple[np.ndarray, np.ndarray, np.ndarray | None]


def encode_columns(
    encoder: Encoder,
    columns: raw_values.Columns,
    rows: slice = slice(None),
    chunk_rows: int = 65_536,
) -> dict[str, Any]:
    """Encodes rows of columns held in memory, chunk by chunk.

    Args:
        encoder: The encoder.
        columns: Raw column -> values (N,), see `raw_values.Columns`.
        rows: Consecutive rows to encode, R of them.
        chunk_rows: Rows per call of the encoder.

    Returns:
        `ids`: (R, F) int32. `dense`: (R, N) float32. `scenario`: (R,) int32. `branch`: (R,)
        int8.
        `bags`: feature -> (values (M,) int32, row splits (R + 1,) int64, weights (M,) float32
        or None).

    Raises:
        UserError: A column is not there, or a list and its weights differ in length.
    """
    held = {
        name: raw_values.slice_rows(raw_values.column_of(columns, name), rows)
        for name in encoder.raw_types
    }
    _check_weights(encoder, held)
    total = raw_values.row_count(next(iter(held.values()))) if held else 0
    layout = encoder.layout
    ids = np.empty((total, len(layout.single)), np.int32)
    dense = np.empty((total, layout.dense_width), np.float32)
    scenario = np.empty(total, np.int32)
    branch = np.empty(total, np.int8)
    bags: dict[str, list[_Bag]] = {field.name: [] for field in encoder.read.bags}
    for start in range(0, total, chunk_rows):
        at = slice(start, min(start + chunk_rows, total))
        encoded = encoder(
            {
                name: _tensor(
                    name, encoder.raw_types[name], raw_values.slice_rows(column, at), start
                )
                for name, column in held.items()
            }
        )
        ids[at] = encoded["ids"].numpy()
        dense[at] = encoded["dense"].numpy()
        scenario[at] = encoded["scenario"].numpy()
        branch[at] = encoded["branch"].numpy()
        for name, (values, weights) in encoded["bags"].items():
            bags[name].append(
                (
                    values.values.numpy().astype(np.int32),
                    values.row_lengths().numpy(),
                    None if weights is None else weights.values.numpy(),
                )
            )
    return {
        "ids": ids,
        "dense": dense,
        "scenario": scenario,
        "branch": branch,
        "bags": {
            name: _join(chunks, weighted=len(encoder.raw_columns_of(name)) > 1)
            for name, chunks in bags.items()
        },
    }


def _tensor(name: str, raw_type: RawType, column: Any, first: int) -> tf.Tensor | tf.RaggedTensor:
    """One raw column, from row `first` on, as the tensor that `raw_signature` promises."""
    if raw_type.kind == "text":
        return _strings(raw_values.texts(column))
    if raw_type.kind == "integer":
        return tf.constant(raw_values.integers(column))
    if raw_type.kind == "number":
        with np.errstate(over="ignore"):
            return tf.constant(raw_values.numbers(column).astype(np.float32))
    if raw_type.kind == "vector":
        return tf.constant(raw_values.vectors(column, raw_type.size, name, first_row=first))
    flat, splits = raw_values.lists(column)
    if raw_type.kind == "texts":
        values = _strings(raw_values.texts(flat))
    else:
        values = tf.constant(raw_values.numbers(flat).astype(np.float32))
    return tf.RaggedTensor.from_row_splits(values, splits, validate=False)


def _strings(texts: pa.Array) -> tf.Tensor:
    """Text as UTF-8 bytes, (M,)."""
    # As binary, the bytes pass as they are instead of being decoded and encoded again.
    return tf.constant(texts.cast(pa.binary()).to_numpy(zero_copy_only=False), tf.string)


def _check_weights(encoder: Encoder, held: raw_values.Columns) -> None:
    for field in encoder.read.bags:
        columns = encoder.raw_columns_of(field.name)
        if len(columns) == 1:
            continue
        values, weights = (np.diff(raw_values.lists(held[c])[1]) for c in columns)  # (R,) each
        if np.array_equal(values, weights):
            continue
        shared = min(len(values), len(weights))
        row = int(np.argmax(values[:shared] != weights[:shared]))
        raise UserError(
            f"The lists in '{columns[0]}' and their weights in '{columns[1]}' differ in length.",
            received=f"{values[row]} values and {weights[row]} weights in row {row}",
            fix="give each value one weight",
        )


def _join(chunks: list[_Bag], weighted: bool) -> _Bag:
    """Chunks of bags to values (M,), row splits (R + 1,) and weights (M,) or None."""
    if not chunks:
        empty = np.zeros(0, np.float32) if weighted else None
        return np.zeros(0, np.int32), np.zeros(1, np.int64), empty
    lengths = np.concatenate([c[1] for c in chunks])
    splits = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=splits[1:])
    weights = [c[2] for c in chunks if c[2] is not None]
    return (
        np.concatenate([c[0] for c in chunks]),
        splits,
        np.concatenate(weights) if weights else None,
    )
