"""Dense features: numbers, vectors and statistics to the dense matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
import tensorflow as tf

from lfm4ads_tf.features.fitted_encoding import FittedEncoding
from lfm4ads_tf.features.kinds import NumericFeature, StatisticFeature
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.graph_checks import graph_assert


class DenseEncoder(tf.Module):
    """Encodes all dense features; numeric ones are stacked and treated together.

        x' = min(max((f(x) - mean) / deviation, -bound), bound)

    with f the identity or sign(x) log(1 + |x|).

    Args:
        spec: The feature spec.
        fitted: Means, deviations and bounds.
        layout: The order of the columns.
        read: The part of the layout to encode; the other columns are 0.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        fitted: FittedEncoding,
        layout: FeatureLayout,
        read: FeatureLayout,
    ) -> None:
        super().__init__(name="dense_encoder")
        numeric = [d.name for d in read.dense if isinstance(spec.features[d.name], NumericFeature)]
        self._numeric = tuple(spec.features[n].raw_columns(n)[0] for n in numeric)
        log = [getattr(spec.features[n], "transform", "raw") == "log" for n in numeric]
        moments = [fitted.standardize.get(n, (0.0, 1.0)) for n in numeric]
        self._log = np.asarray(log, bool)[:, np.newaxis]  # (N, 1)
        self._mean = np.asarray([m for m, _ in moments], np.float32)[:, np.newaxis]  # (N, 1)
        self._deviation = np.asarray([d for _, d in moments], np.float32)[:, np.newaxis]  # (N, 1)
        bounds = [fitted.bounds.get(n, np.inf) for n in numeric]
        self._bound = np.asarray(bounds, np.float32)[:, np.newaxis]  # (N, 1)
        vectors: list[str] = []
        scalars: list[str] = []
        starts: dict[str, int] = {n: i for i, n in enumerate(numeric)}
        width = len(numeric)
        for field in read.dense:
            if field.name in starts:
                continue
            feature = spec.features[field.name]
            columns = feature.raw_columns(field.name)
            if isinstance(feature, StatisticFeature):
                starts[field.name] = width
                scalars += columns
                width += len(columns)
        for field in read.dense:
            if field.name not in starts:  # pretrained
                starts[field.name] = width
                vectors += spec.features[field.name].raw_columns(field.name)
                width += field.width
        self._scalars, self._vectors = tuple(scalars), tuple(vectors)
        # one past the last is a column of zeros
        self._order = [
            starts[d.name] + i if d.name in starts else width
            for d in layout.dense
            for i in range(d.width)
        ]
        self._partial = width < layout.dense_width

    def __call__(self, raw: Mapping[str, tf.Tensor], batch: tf.Tensor) -> tf.Tensor:
        """Encodes a batch of B rows.

        Returns:
            Numbers in the layout's order, (B, N) float32; what is missing is 0.
        """
        parts = []
        if self._numeric:
            # Columns first: a column is then copied as a whole, not number by number.
            values = tf.stack([raw[c] for c in self._numeric])  # (N, B)
            values = standardize(values, self._log, self._mean, self._deviation, self._bound)
            parts.append(tf.transpose(values))  # (B, N)
        if self._scalars:
            values = finite(tf.stack([raw[c] for c in self._scalars]))  # (N, B)
            parts.append(tf.transpose(values))  # (B, N)
        parts += [finite_vectors(raw[c], f"Vectors of the column {c}") for c in self._vectors]
        if self._partial:
            parts.append(tf.zeros([batch, 1]))
        if not parts:
            return tf.zeros([batch, 0], tf.float32)
        return tf.gather(tf.concat(parts, axis=1), self._order, axis=1)  # (B, N)


def standardize(
    values: tf.Tensor,
    log: np.ndarray,
    mean: np.ndarray,
    deviation: np.ndarray,
    bound: np.ndarray,
) -> tf.Tensor:
    """The dense value of numbers: log where asked, standardised, bounded; 0 if missing.

    Args:
        values: Columns of B numbers, (N, B) float32; not finite is missing.
        log: Which columns are logarithmic, (N, 1) bool.
        mean, deviation: (N, 1) float32.
        bound: Largest absolute value, (N, 1) float32; infinite for none.

    Returns:
        (N, B) float32.
    """
    known = tf.math.is_finite(values)
    if log.any():
        # In float32 the last bit of log1p depends on a row's place in the batch (vector lanes
        # against the remainder); rounding from float64 makes the value depend on the row alone.
        wide = tf.cast(values, tf.float64)
        logarithm = tf.cast(tf.sign(wide) * tf.math.log1p(tf.abs(wide)), tf.float32)
        values = tf.where(log, logarithm, values)
    # The graph optimiser turns a division by constants into this product; saying it here keeps
    # serving bit-equal to the encoding of the training data.
    values = (values - mean) * (np.float32(1) / deviation)
    if np.isfinite(bound).any():
        # What is missing is settled by the raw number: a quotient that overflows is bounded.
        values = tf.where(known, values, tf.constant(0.0, tf.float32))
        values = tf.minimum(tf.maximum(values, -bound), bound)
    return finite(values)


def finite(values: tf.Tensor) -> tf.Tensor:
    """Replaces what is not finite by 0."""
    return cast(
        tf.Tensor, tf.where(tf.math.is_finite(values), values, tf.constant(0.0, tf.float32))
    )


def finite_vectors(values: tf.Tensor, what: str) -> tf.Tensor:
    """Vectors (B, d) of which every number is finite, which an op of the graph checks.

    A missing vector is zeros; one with NaN or infinity inside is a fault of whoever made it, and
    what a product makes of it depends on the processor.

    Args:
        values: (B, d) float32.
        what: Whose they are, for the message.

    Raises:
        tf.errors.InvalidArgumentError: One is NaN or infinite.
    """
    sound = tf.reduce_all(tf.math.is_finite(values), axis=1)  # (B,)
    # without quotes, which the message of an op would show as escapes
    told = f"{what} must hold finite numbers or be absent. NaN or infinity in the rows"
    check = graph_assert(tf.reduce_all(sound), [told, tf.where(~sound)[:, 0]], summarize=8)
    with tf.control_dependencies([check] if check is not None else []):
        return tf.identity(values)
