"""Drift of every feature of some logged rows against the training rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lfm4ads_tf.analysis.anomaly import Anomaly
from lfm4ads_tf.analysis.drift import Measure, bag_measures, id_measures, number_measures
from lfm4ads_tf.analysis.value_names import ValueNames
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.features.skew import SkewConfig, SkewLimits
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.tables import encoding_of, table_of

CHANCE = 0.01
"""Probability that sampling alone makes any anomaly at all in one report."""


@dataclass(frozen=True)
class FeatureDrift:
    """The measures of one feature.

    Attributes:
        feature: Its name.
        kind: Its kind in the spec.
        limits: What it is held to, None for a feature that moves with the log.
        measures: See `lfm4ads_tf.analysis.drift`.
        allowances: Of each measure, in the same order.
        value: Name of the value whose share changed most.
        anomalies: Measures beyond their limits.
    """

    feature: str
    kind: str
    limits: SkewLimits | None
    measures: list[Measure]
    value: str
    allowances: list[float] = field(default_factory=list)
    anomalies: list[Anomaly] = field(default_factory=list)

    def measure(self, kind: str) -> Measure | None:
        """One of the measures; a feature without a vocabulary has no `oov`."""
        return next((m for m in self.measures if m.kind == kind), None)

    def to_json(self) -> dict[str, Any]:
        """Plain values for the report."""
        measures = {}
        for measure, allowance in zip(self.measures, self.allowances, strict=True):
            rates = {"training": measure.worst.training, "logged": measure.worst.logged}
            measures[measure.kind] = {
                "distance": measure.distance,
                "threshold": None if self.limits is None else getattr(self.limits, measure.kind),
                "allowance": allowance,
                "rows": measure.rows,
                "train_rows": measure.train_rows,
                **rates,
                **({"value": self.value} if measure.kind == "linf" else {}),
            }
        return {
            "feature": self.feature,
            "kind": self.kind,
            "held": self.limits is not None,
            "measures": measures,
            "anomalies": [str(a) for a in self.anomalies],
        }


def feature_drift(
    spec: FeatureSpec,
    layout: FeatureLayout,
    training: Mapping[str, Any],
    logged: Mapping[str, Any],
    *,
    columns: Mapping[str, Any],
    names: ValueNames,
    skew: SkewConfig,
    features: Collection[str] | None = None,
) -> list[FeatureDrift]:
    """Measures every feature and finds the anomalies, in the spec's order.

    The measures that have a limit are tested together: each may be wrong with an equal part of
    `CHANCE`, so that rows of the training distribution give no anomaly with probability
    1 - `CHANCE`, whatever the number of features.

    Args:
        spec: The feature spec.
        layout: Order of the encoded columns.
        training: Encoded training rows, see `encode_columns`.
        logged: Encoded logged rows.
        columns: Raw columns of the logged rows.
        names: Names encoded values.
        skew: The limits.
        features: Features to measure; all when absent.
    """
    drifts = []
    for name, feature in spec.features.items():
        if features is None or name in features:
            measures = _measures(spec, layout, name, training, logged)
            ids = _ids(layout, name, logged)
            value = _worst(measures[-1], name, ids, columns, names)
            limits = skew.limits(name, feature)
            drifts.append(FeatureDrift(name, feature.kind, limits, measures, value))
    tests = sum(len(drift.measures) for drift in drifts if drift.limits is not None)
    return [_judged(drift, CHANCE / max(1, tests)) for drift in drifts]


def _judged(drift: FeatureDrift, delta: float) -> FeatureDrift:
    """The drift with its allowances and anomalies."""
    allowances = [measure.allowance(delta) for measure in drift.measures]
    anomalies = []
    for measure, allowance in zip(drift.measures, allowances, strict=True):
        if drift.limits is None or measure.distance is None:
            continue
        limit = getattr(drift.limits, measure.kind)
        if measure.exceeds(limit, delta):
            anomalies.append(
                Anomaly(
                    drift.feature,
                    measure.kind,
                    measure.distance,
                    limit,
                    allowance,
                    drift.value if measure.kind == "linf" else None,
                    measure.worst.training,
                    measure.worst.logged,
                    measure.rows,
                )
            )
    return replace(drift, allowances=allowances, anomalies=anomalies)


def _measures(
    spec: FeatureSpec,
    layout: FeatureLayout,
    name: str,
    training: Mapping[str, Any],
    logged: Mapping[str, Any],
) -> list[Measure]:
    """The measures of one feature, `linf` last."""
    start = 0
    for dense in layout.dense:
        if dense.name == name:
            columns = slice(start, start + dense.width)
            return number_measures(training["dense"][:, columns], logged["dense"][:, columns])
        start += dense.width
    vocabulary = encoding_of(spec, name) == "vocabulary"
    rows = next(t.rows for t in layout.tables if t.name == table_of(spec, name))
    if name in [bag.name for bag in layout.bags]:
        sides = [side["bags"][name][:2] for side in (training, logged)]
        return bag_measures(sides[0], sides[1], table_rows=rows, vocabulary=vocabulary)
    ids = [_ids(layout, name, side) for side in (training, logged)]
    return id_measures(ids[0], ids[1], table_rows=rows, vocabulary=vocabulary)


def _ids(layout: FeatureLayout, name: str, encoded: Mapping[str, Any]) -> np.ndarray:
    """Ids of a feature with one id per row, (R,); none for another feature."""
    for column, single in enumerate(layout.single):
        if single.name == name:
            return np.asarray(encoded["ids"][:, column])
    return np.zeros(0, np.int32)


def _worst(
    measure: Measure,
    name: str,
    ids: np.ndarray,
    columns: Mapping[str, Any],
    names: ValueNames,
) -> str:
    """Name of the value whose share changed most."""
    worst = measure.worst
    if measure.distance is None:
        return ""
    if worst.value is not None:
        return names.id_in_rows(name, worst.value, ids, columns)
    return names.interval(name, worst.component, worst.low, worst.high)
