"""Encoded values as a reader of a report knows them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lfm4ads_tf.features import raw_values
from lfm4ads_tf.features.fitted_encoding import FittedEncoding
from lfm4ads_tf.features.kinds import NumericFeature, PretrainedFeature, StatisticFeature
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.tables import encoding_of, table_of


class ValueNames:
    """Names the ids and the encoded numbers of features.

    Args:
        spec: The feature spec.
        fitted: What the training rows settled.
    """

    def __init__(self, spec: FeatureSpec, fitted: FittedEncoding) -> None:
        self._spec = spec
        self._fitted = fitted

    def id(self, name: str, value: int) -> str:
        """A logical id of a feature: its text, interval or bucket."""
        if value < 0:
            return "missing"
        encoding = encoding_of(self._spec, name)
        if encoding == "vocabulary":
            values = self._fitted.vocabularies[table_of(self._spec, name)].values
            if value == 0:
                return "out of vocabulary"
            return f"'{values[value - 1]}'" if value <= len(values) else f"id {value}"
        if encoding == "bucketized":
            edges = [-math.inf, *self._fitted.boundaries[name], math.inf]
            return f"[{edges[value]:.6g}, {edges[value + 1]:.6g})"
        return str(value) if encoding == "identity" else f"bucket {value}"

    def id_in_rows(self, name: str, value: int, ids: np.ndarray, columns: Mapping[str, Any]) -> str:
        """As `id`; a bucket is told by the raw text of a row that falls into it, if there is one.

        Args:
            name: A feature with one id per row.
            value: The id.
            ids: Its ids of some rows, (R,).
            columns: Raw columns of these rows.
        """
        rows = np.flatnonzero(ids == value)
        if value < 0 or not len(rows) or encoding_of(self._spec, name) not in ("hashed", "crossed"):
            return self.id(name, value)
        read = self._spec.features[name].raw_columns(name)
        texts = [raw_values.texts(columns[c])[int(rows[0])].as_py() for c in read]
        return f"{self.id(name, value)} (such as '{' x '.join(texts)}')"

    def interval(self, name: str, component: int, low: float, high: float) -> str:
        """An open interval of a dense feature's encoded numbers, in the raw column's unit."""
        feature = self._spec.features[name]
        ends = [self._raw(name, end) for end in (low, high)]
        text = f"{ends[0]:.6g}" if low == high else f"({ends[0]:.6g}, {ends[1]:.6g})"
        if isinstance(feature, StatisticFeature):
            return f"{feature.values[component]} {text}"
        if isinstance(feature, PretrainedFeature):
            return f"element {component} {text}"
        return text

    def number(self, name: str, value: np.ndarray) -> str:
        """The encoded numbers (W,) of a row, as they are."""
        return ", ".join(f"{v:.7g}" for v in np.atleast_1d(value)[:8]) + (
            ", ..." if value.size > 8 else ""
        )

    def _raw(self, name: str, encoded: float) -> float:
        """The number behind an encoded one."""
        feature = self._spec.features[name]
        if not isinstance(feature, NumericFeature):
            return encoded
        mean, deviation = self._fitted.standardize.get(name, (0.0, 1.0))
        value = encoded * deviation + mean
        if feature.transform != "log":
            return value
        with np.errstate(over="ignore"):
            return math.copysign(float(np.expm1(abs(value))), value)
