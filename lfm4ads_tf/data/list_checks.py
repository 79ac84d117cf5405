"""Lists whose length must fit, checked where they are read: the row is the file's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lfm4ads_tf.data.sources.places import ROW, BadRow
from lfm4ads_tf.features.kinds import MultiFeature, PretrainedFeature
from lfm4ads_tf.features.spec import FeatureSpec


def check_lists(spec: FeatureSpec, rows: Mapping[str, pa.Array]) -> None:
    """Checks the vectors and the weights that a table holds.

    Args:
        spec: The feature spec.
        rows: Column -> values (N,), in the order of the table's files.

    Raises:
        BadRow: A vector has another length than its feature's `size` or a number beyond float32,
            or a list and its weights, of the same table, differ in length.
    """
    for name, feature in spec.features.items():
        if isinstance(feature, PretrainedFeature):
            column = feature.raw_columns(name)[0]
            if _holds_lists(rows, column):
                _check_vectors(column, feature.size, rows[column])
        elif isinstance(feature, MultiFeature) and feature.weights is not None:
            values, weights = feature.raw_columns(name)
            if _holds_lists(rows, values) and _holds_lists(rows, weights):
                _check_weights(values, weights, rows)


def _holds_lists(rows: Mapping[str, pa.Array], column: str) -> bool:
    return column in rows and bool(pa.types.is_list(rows[column].type))


def _check_vectors(name: str, size: int, column: pa.Array) -> None:
    lengths = _lengths(column)
    wrong = (lengths != 0) & (lengths != size)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise BadRow(
            f"Column '{name}' must hold vectors of {size} numbers.",
            row=row,
            received=f"{lengths[row]} numbers in {ROW}",
            fix="correct the data, or the `size` of the feature",
        )
    numbers = column.flatten().to_numpy(zero_copy_only=False)
    # float32 rounds numbers a little above its largest one down to it.
    with np.errstate(over="ignore"):
        beyond = ~np.isfinite(numbers.astype(np.float32))
    if beyond.any():
        at = int(np.argmax(beyond))
        raise BadRow(
            f"Column '{name}' holds NaN, infinity or a number beyond float32 inside a vector.",
            row=int(np.searchsorted(np.cumsum(lengths), at, side="right")),
            received=f"{numbers[at]:g} in {ROW}",
            fix="correct the vector, or leave it out: a missing vector is zeros",
        )


def _check_weights(values: str, weights: str, rows: Mapping[str, pa.Array]) -> None:
    lengths = [_lengths(rows[column]) for column in (values, weights)]
    wrong = lengths[0] != lengths[1]
    if wrong.any():
        row = int(np.argmax(wrong))
        raise BadRow(
            f"The lists in '{values}' and their weights in '{weights}' differ in length.",
            row=row,
            received=f"{lengths[0][row]} values and {lengths[1][row]} weights in {ROW}",
            fix="give each value one weight",
        )


def _lengths(column: pa.Array) -> np.ndarray:
    """Values of each row's list, (N,)."""
    lengths = pc.fill_null(pc.list_value_length(column), 0)
    return np.asarray(lengths.to_numpy(zero_copy_only=False))
