"""Fitting an encoding to the training rows: vocabularies, boundaries, standardisation."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features import raw_values
from lfm4ads_tf.features.fitted_encoding import ALL, FittedEncoding
from lfm4ads_tf.features.kinds import NumericFeature
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.tables import encoding_of, is_bag, table_of
from lfm4ads_tf.features.vocabulary import Vocabulary


def fit_encoding(
    spec: FeatureSpec,
    columns: raw_values.Columns,
    train_rows: np.ndarray,
    first_period: np.ndarray,
) -> FittedEncoding:
    """Fits vocabularies, boundaries and standardisation on the training rows.

    No later row can change what was settled by an earlier one: a vocabulary only appends, and
    the numbers come from the first training period alone.

    Args:
        spec: The feature spec.
        columns: Raw column -> values of all rows (N,), see `raw_values.Columns`.
        train_rows: Training rows in time order, auxiliary rows first, (T,) integer.
        first_period: Whether a row lies in the first training period, (N,) bool.

    Raises:
        UserError: A numeric feature has no value in the first training period, or a column is
            not there.
    """
    first_rows = train_rows[first_period[train_rows]]
    vocabularies: dict[str, Vocabulary] = {}
    boundaries: dict[str, list[float]] = {}
    standardize: dict[str, tuple[float, float]] = {}
    bounds: dict[str, float] = {}
    for name, feature in spec.features.items():
        if isinstance(feature, NumericFeature):
            if feature.boundaries is not None:
                boundaries[name] = _float32_steps(np.asarray(feature.boundaries))
            if feature.bound is not None:
                bounds[name] = feature.bound
            if not feature.is_fitted:
                continue
            (column,) = feature.raw_columns(name)
            values = _first_values(raw_values.column_of(columns, column), first_rows, name, column)
            if feature.transform == "buckets":
                inner = np.arange(1, feature.buckets) / feature.buckets
                boundaries[name] = _float32_steps(np.quantile(values, inner))
            else:
                standardize[name] = _moments(values, feature.transform == "log")
        elif table_of(spec, name) == name and encoding_of(spec, name) == "vocabulary":
            vocabularies[name] = _vocabulary(spec, name, columns, train_rows)
    return FittedEncoding(
        vocabularies, boundaries, standardize, _scenarios(spec, columns, train_rows), bounds
    )


def _vocabulary(
    spec: FeatureSpec, name: str, columns: raw_values.Columns, train_rows: np.ndarray
) -> Vocabulary:
    texts, ordinals = occurrences(spec, name, columns, train_rows)
    return Vocabulary.fit(texts, ordinals, getattr(spec.features[name], "min_count", 1))


def occurrences(
    spec: FeatureSpec, name: str, columns: raw_values.Columns, rows: np.ndarray
) -> tuple[pa.Array, np.ndarray]:
    """Values of a feature in some rows, (M,) string, and the place of each one's row, (M,)."""
    feature = spec.features[name]
    column = raw_values.column_of(columns, feature.raw_columns(name)[0])
    ordinals = np.arange(len(rows), dtype=np.int64)
    if is_bag(feature):
        flat, splits = raw_values.lists(column)
        texts, lengths = _take_lists(raw_values.texts(flat), splits, rows)
        return texts, np.repeat(ordinals, lengths)
    return raw_values.texts(column).take(pa.array(rows)), ordinals


def _take_lists(
    values: pa.Array, splits: np.ndarray, rows: np.ndarray
) -> tuple[pa.Array, np.ndarray]:
    """The lists of some rows, one after the other (M,), and their lengths (rows,)."""
    lengths = np.diff(splits)[rows]
    ends = np.cumsum(lengths)
    shift = np.repeat(splits[:-1][rows] - (ends - lengths), lengths)  # (M,)
    return values.take(pa.array(np.arange(len(shift)) + shift)), lengths


def _first_values(column: object, rows: np.ndarray, name: str, column_name: str) -> np.ndarray:
    """Finite float32 values of the first training period, as float64."""
    with np.errstate(over="ignore"):
        values = raw_values.numbers(column)[rows].astype(np.float32)
    values = values[np.isfinite(values)].astype(np.float64)
    if not len(values):
        raise UserError(
            f"Feature '{name}' has no value in the first training period.",
            received=f"{len(rows)} rows, all of them missing in column '{column_name}'",
            fix="remove the feature, set `standardize: false`, give explicit `boundaries`, or let "
            "more periods count as the first one with period.first_at_most",
        )
    return values


def _moments(values: np.ndarray, log: bool) -> tuple[float, float]:
    if log:
        values = np.sign(values) * np.log1p(np.abs(values))
    deviation = float(values.std())
    # A spread below float32's resolution of the mean is rounding, not information.
    constant = deviation <= np.finfo(np.float32).eps * max(abs(float(values.mean())), 1e-30)
    return float(values.mean()), 1.0 if constant else deviation


def _float32_steps(boundaries: np.ndarray) -> list[float]:
    """Boundaries as the encoder compares them: float32, ties removed."""
    return [float(b) for b in np.unique(boundaries.astype(np.float32))]


def _scenarios(spec: FeatureSpec, columns: raw_values.Columns, train_rows: np.ndarray) -> list[str]:
    if spec.keys.scenario is None:
        return [ALL]
    column = raw_values.texts(raw_values.column_of(columns, spec.keys.scenario))
    scenarios = pc.unique(column.take(pa.array(train_rows))).to_pylist()
    last = spec.auxiliary.scenario if spec.auxiliary is not None else None
    return [s for s in scenarios if s not in ("", last)] + [s for s in scenarios if s == last and s]
