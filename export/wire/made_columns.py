"""Columns of a request that rows hold in parts: joined keys, and vectors of columns."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from lfm4ads_tf.export.wire.raw_rows import RawRows
from lfm4ads_tf.features.joined_keys import joined_texts
from lfm4ads_tf.features.raw_types import RawType
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.vector_columns import settled_vectors


def make_columns(rows: RawRows, spec: FeatureSpec, wanted: Collection[str], reader: str) -> None:
    """Adds what a model reads and the rows hold in parts, as the reader of files makes it.

    A column that the rows hold as it is stays; a missing number of a vector is 0.

    Args:
        rows: N rows; gets the new columns.
        spec: The feature spec.
        wanted: Columns that the model reads.
        reader: Who asks for them, for messages.

    Raises:
        ServingError: A part has another type than a text or a number.
    """
    for key, parts in spec.keys.joined.items():
        if key in wanted and key not in rows.columns and rows.columns.keys() >= {*parts}:
            texts = [rows.column(part, RawType("text"), reader) for part in parts]
            rows.columns[key] = joined_texts(texts)
    for name, columns in settled_vectors(spec).items():
        if name in wanted and name not in rows.columns and rows.columns.keys() >= {*columns}:
            numbers = [rows.column(c, RawType("number"), reader) for c in columns]
            rows.columns[name] = np.nan_to_num(np.stack(numbers, axis=1))  # (N, size)
