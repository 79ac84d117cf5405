"""The raw columns that an encoder reads and their types: files, requests, and signatures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import tensorflow as tf

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.kinds import (
    CrossedFeature,
    MultiFeature,
    NumericFeature,
    PretrainedFeature,
    SequenceFeature,
    StatisticFeature,
)
from lfm4ads_tf.features.spec import FeatureSpec, Owner
from lfm4ads_tf.features.tables import encoding_of

ColumnKind = Literal["text", "integer", "number", "texts", "numbers", "vector"]

_PLAIN: dict[ColumnKind, str] = {
    "text": "text",
    "integer": "an integer",
    "number": "a number",
    "texts": "a list of texts",
    "numbers": "a list of numbers",
    "vector": "a vector",
}


@dataclass(frozen=True)
class RawType:
    """Type of one raw column; `size` is the length of a vector, 0 for the other kinds."""

    kind: ColumnKind
    size: int = 0

    def __str__(self) -> str:
        return _PLAIN[self.kind] + (f" of {self.size} numbers" if self.size else "")


def raw_types(spec: FeatureSpec) -> dict[str, RawType]:
    """Raw column -> type, in the order of first use; the scenario key and `ads.by` come last.

    Raises:
        UserError: Two features read one column as different types, both are named; or the
            ads are told by a column of lists.
    """
    types: dict[str, RawType] = {}
    readers: dict[str, str] = {}

    def read(column: str, wanted: RawType, reader: str) -> None:
        if types.setdefault(column, wanted) != wanted:
            raise UserError(
                f"Column '{column}' is read as {types[column]} by {readers[column]} "
                f"and as {wanted} by {reader}.",
                fix="give both features kinds that read the same type: hashed, vocabulary, "
                "crossed and the scenario key read text; identity reads integers; numeric reads "
                "numbers, and with `transform: buckets` and `boundaries` can replace identity",
            )
        readers.setdefault(column, reader)

    for name in spec.features:
        for column, wanted in _reads(spec, name):
            read(column, wanted, f"feature '{name}'")
    if spec.keys.scenario is not None:
        read(spec.keys.scenario, RawType("text"), "the scenario key")
    if spec.ads is not None:
        ads_type = types.setdefault(spec.ads.by, RawType("text"))
        if ads_type.kind in ("texts", "numbers", "vector"):
            raise UserError(
                f"`ads` goes by '{spec.ads.by}', which is read as {ads_type}.",
                fix="name a column with one text or number per row",
            )
        if ads_type.kind != "text" and not spec.ads.numbers:
            raise UserError(
                f"`ads` goes by '{spec.ads.by}', which is read as {ads_type}, but names no number.",
                received=spec.ads.values,
                fix="correct `ads.values`",
            )
    return types


def raw_columns_of(spec: FeatureSpec, name: str) -> tuple[str, ...]:
    """Raw columns that a feature is fed with, in order."""
    return tuple(column for column, _ in _reads(spec, name))


def _reads(spec: FeatureSpec, name: str) -> list[tuple[str, RawType]]:
    """Columns and types that one feature is fed with."""
    feature = spec.features[name]
    if isinstance(feature, SequenceFeature):
        # The events of a user are assembled from the log and travel under the feature's name.
        column = name if feature.events_of is not None else feature.raw_columns(name)[0]
        return [(column, RawType("texts"))]
    columns = feature.raw_columns(name)
    if isinstance(feature, MultiFeature):
        kinds: tuple[ColumnKind, ...] = ("texts", "numbers")
        return [(c, RawType(k)) for c, k in zip(columns, kinds, strict=False)]
    if isinstance(feature, PretrainedFeature):
        return [(columns[0], RawType("vector", feature.size))]
    if isinstance(feature, NumericFeature | StatisticFeature):
        return [(c, RawType("number")) for c in columns]
    if not isinstance(feature, CrossedFeature) and encoding_of(spec, name) == "identity":
        return [(columns[0], RawType("integer"))]
    return [(c, RawType("text")) for c in columns]


def raw_sides(spec: FeatureSpec) -> dict[str, Owner]:
    """Raw column -> the side that it describes.

    A column that a user or item feature reads is that side's. One that only context features read
    is the side's that the spec's keys and the log's column lists name, else the context's.
    """
    sides: dict[str, Owner] = {}
    for name, feature in spec.features.items():
        for column in raw_columns_of(spec, name):
            if feature.owner != "context":
                sides[column] = feature.owner
    return {
        column: sides.get(column) or spec.column_side(column) or "context"
        for column in raw_types(spec)
    }


def raw_signature(spec: FeatureSpec) -> dict[str, tf.TypeSpec]:
    """Raw column -> type of its batched tensor.

    Returns:
        text: string (B,); integer: int64 (B,); number: float32 (B,); texts: ragged string
        (B, None); numbers: ragged float32 (B, None); vector: float32 (B, size).
    """

    def signature(column: str, raw_type: RawType) -> tf.TypeSpec:
        if raw_type.kind in ("texts", "numbers"):
            dtype = tf.string if raw_type.kind == "texts" else tf.float32
            return tf.RaggedTensorSpec([None, None], dtype, ragged_rank=1)
        if raw_type.kind == "vector":
            return tf.TensorSpec([None, raw_type.size], tf.float32, name=column)
        dtypes = {"text": tf.string, "integer": tf.int64, "number": tf.float32}
        return tf.TensorSpec([None], dtypes[raw_type.kind], name=column)

    return {column: signature(column, raw_type) for column, raw_type in raw_types(spec).items()}


def example_spec(spec: FeatureSpec) -> dict[str, Any]:
    """Raw column -> how `tf.io.parse_example` reads it; an absent feature is a missing value."""
    statistics = {
        column
        for name, feature in spec.features.items()
        if isinstance(feature, StatisticFeature)
        for column in feature.raw_columns(name)
    }

    return {
        column: example_parser(raw_type, 0.0 if column in statistics else float("nan"))
        for column, raw_type in raw_types(spec).items()
    }


def example_parser(raw_type: RawType, missing: float = float("nan")) -> Any:
    """How `tf.io.parse_example` reads a column; `missing` stands for a number that is absent."""
    if raw_type.kind in ("texts", "numbers"):
        dtype = tf.string if raw_type.kind == "texts" else tf.float32
        return tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64)
    if raw_type.kind == "vector":
        return tf.io.FixedLenFeature([raw_type.size], tf.float32, [0.0] * raw_type.size)
    if raw_type.kind == "text":
        return tf.io.FixedLenFeature([], tf.string, "")
    if raw_type.kind == "integer":
        return tf.io.FixedLenFeature([], tf.int64, -1)
    return tf.io.FixedLenFeature([], tf.float32, missing)
