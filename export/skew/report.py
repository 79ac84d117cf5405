"""What `check-skew` found: features and scores that differ, and drift."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lfm4ads_tf.analysis.anomaly import Anomaly
from lfm4ads_tf.analysis.drift import Measure
from lfm4ads_tf.analysis.feature_drift import FeatureDrift
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.export.skew.comparison import SkewComparison


@dataclass(frozen=True)
class SkewReport:
    """The findings on one log and one model.

    Attributes:
        model: Name of the model.
        log: The log.
        served: Who answered.
        rows: Rows replayed.
        train_rows: Training rows behind the drift.
        features: What the model is fed, in the spec's order; then representations and scenario.
        raw: Moving columns that the log holds, as they are logged.
        scores: Every task.
        tolerance: What a score of 0.5 may differ, which is the most.
        drift: The same features' distributions.
    """

    model: str
    log: str
    served: str
    rows: int
    train_rows: int
    features: list[SkewComparison]
    raw: list[SkewComparison]
    scores: list[SkewComparison]
    tolerance: float
    drift: list[FeatureDrift]

    @property
    def anomalies(self) -> list[Anomaly]:
        """All anomalies of the distributions."""
        return [anomaly for drift in self.drift for anomaly in drift.anomalies]

    def raise_if_skewed(self) -> None:
        """Names the first thing that is not as it should be.

        Raises:
            UserError: A feature or a score differs, or a distribution drifted.
        """
        features = [c for c in self.features if c.differing]
        scores = [c for c in self.scores if c.differing]
        anomalies = self.anomalies
        if features:
            first = features[0]
            raise UserError(
                f"Served and offline rows differ: {first}.{_more(features, 'feature')}",
                received=first.reason,
                fix="mend this feature first; the table above has all of them, docs/skew.md the "
                "usual causes",
            )
        if scores:
            first = scores[0]
            raise UserError(
                f"Served and offline scores differ with every feature equal: {first}.",
                received=f"a difference of up to {first.largest:.3g}, allowed are "
                f"{self.tolerance:.2g}",
                fix="the served weights are not the run's: export the model again, and check "
                "which version the server has loaded",
            )
        if anomalies:
            raise UserError(
                f"The log is not like the training rows: {anomalies[0]}."
                + _more(anomalies, "anomaly", "anomalies"),
                fix="mend the input or train on newer rows; where the change is meant, raise the "
                "limit under `skew` in the feature spec",
            )

    def print(self, console: Console) -> None:
        """Prints a table of all features, one of the scores, and every anomaly."""
        table = Table(
            title=f"{escape(self.model)}: {self.rows:,} logged rows against {escape(self.served)}; "
            f"drift against {self.train_rows:,} training rows"
        )
        table.add_column("feature")
        table.add_column("kind")
        for name in ("rows that differ", "first row", "L-inf", "allowed"):
            table.add_column(name, justify="right")
        table.add_column("missing", justify="right")
        table.add_column("OOV", justify="right")
        table.add_column("finding")
        drifts = {drift.feature: drift for drift in self.drift}
        for comparison in [*self.features, *self.raw]:
            drift = drifts.get(comparison.name) if comparison.kind != "raw column" else None
            table.add_row(
                escape(comparison.name),
                comparison.kind,
                f"{comparison.differing:,} of {comparison.rows:,}",
                "" if comparison.row is None else str(comparison.row),
                *_drift_cells(drift),
                _finding(comparison, drift),
            )
        console.print(table)
        scores = Table(title=f"Scores, which may differ by {self.tolerance:.2g}")
        scores.add_column("task")
        for name in ("rows that differ", "first row", "largest difference"):
            scores.add_column(name, justify="right")
        for comparison in self.scores:
            row = "" if comparison.row is None else str(comparison.row)
            largest = f"{comparison.largest or 0.0:.2e}"
            scores.add_row(
                escape(comparison.name),
                f"{comparison.differing:,} of {comparison.rows:,}",
                row,
                largest,
            )
        console.print(scores)
        for anomaly in self.anomalies:
            console.print(f"drift: {escape(str(anomaly))}")

    def to_json(self) -> dict[str, Any]:
        """The report's document."""
        return {
            "schema": 1,
            "model": self.model,
            "log": self.log,
            "served": self.served,
            "rows": self.rows,
            "train_rows": self.train_rows,
            "tolerance": self.tolerance,
            "skew": any(c.differing for c in (*self.features, *self.scores)),
            "drift": bool(self.anomalies),
            "features": [_plain(c) for c in self.features],
            "raw_columns": [_plain(c) for c in self.raw],
            "scores": [_plain(c) for c in self.scores],
            "distributions": [drift.to_json() for drift in self.drift],
            "anomalies": [dict(vars(anomaly)) for anomaly in self.anomalies],
        }


def _plain(comparison: SkewComparison) -> dict[str, Any]:
    held = comparison.to_json()
    largest = held["largest"]
    if largest is not None and not math.isfinite(largest):
        held["largest"] = None
    return held


def _more(items: list[Any], one: str, many: str | None = None) -> str:
    """How many there are beside the first."""
    others = len(items) - 1
    if not others:
        return ""
    return f" {others} more {one if others == 1 else many or one + 's'}."


def _drift_cells(drift: FeatureDrift | None) -> list[str]:
    """L-infinity distance with what is allowed, missing and out-of-vocabulary rates."""
    if drift is None:
        return ["", "", "", ""]
    distance = drift.measure("linf")
    allowed = "not held"
    if drift.limits is not None and drift.allowances:
        allowed = f"{drift.limits.linf:g} + {drift.allowances[-1]:.3f}"
    return [
        "" if distance is None or distance.distance is None else f"{distance.distance:.3f}",
        allowed,
        _rates(drift.measure("missing")),
        _rates(drift.measure("oov")),
    ]


def _rates(measure: Measure | None) -> str:
    if measure is None:
        return ""
    return f"{measure.worst.training:.1%} -> {measure.worst.logged:.1%}"


def _finding(comparison: SkewComparison, drift: FeatureDrift | None) -> str:
    findings = []
    if comparison.differing:
        findings.append("differs" if comparison.kind != "raw column" else "logged otherwise")
    if drift is not None:
        findings += [anomaly.kind for anomaly in drift.anomalies]
    return ", ".join(findings) or "ok"
