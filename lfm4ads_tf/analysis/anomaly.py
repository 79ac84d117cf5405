"""One way in which logged rows are not like the training rows."""

from __future__ import annotations

from dataclasses import dataclass

from lfm4ads_tf.analysis.drift import DriftKind

_NAMES = {
    "linf": "L-infinity distance",
    "missing": "missing rate",
    "oov": "out-of-vocabulary rate",
}


@dataclass(frozen=True)
class Anomaly:
    """A measure beyond its limit and what sampling explains.

    Attributes:
        feature: The feature.
        kind: The measure.
        distance: For rates logged - training.
        threshold: The spec's limit.
        allowance: What sampling may add, see `lfm4ads_tf.analysis.drift`.
        value: The value whose share changed most; None for a rate.
        training, logged: Its shares, or the two rates.
        rows: Logged rows behind the measure.
    """

    feature: str
    kind: DriftKind
    distance: float
    threshold: float
    allowance: float
    value: str | None
    training: float
    logged: float
    rows: int

    def __str__(self) -> str:
        worst = f" at {self.value}" if self.value is not None else ""
        return (
            f"feature '{self.feature}': {_NAMES[self.kind]} {self.distance:+.4f}{worst} "
            f"({self.training:.4f} in training, {self.logged:.4f} in the log) is beyond the "
            f"threshold {self.threshold:g} and the {self.allowance:.4f} that sampling may add at "
            f"{self.rows:,} rows"
        )
