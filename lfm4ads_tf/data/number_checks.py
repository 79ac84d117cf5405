"""What `prepare` says about the numbers that a model reads."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np

from lfm4ads_tf.features import raw_values
from lfm4ads_tf.features.fitted_encoding import FittedEncoding
from lfm4ads_tf.features.kinds import NumericFeature, StatisticFeature
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.features.spec import FeatureSpec

_LOG = logging.getLogger(__name__)

TOLD_SHARE = 0.01
"""Share of bounded values from which on they are told."""
LARGE = 1e4
"""Input without a bound from which on it is told."""

Counts = dict[str, dict[str, int]]
"""Feature -> rows' name -> values beyond the bound."""


def check_numbers(
    spec: FeatureSpec,
    fitted: FittedEncoding,
    columns: raw_values.Columns,
    layout: FeatureLayout,
    encoded: Mapping[str, np.ndarray],
    rows: Mapping[str, np.ndarray],
) -> Counts:
    """Counts values beyond the bound, and tells what makes a poor input.

    Told are a feature of which more than 1 % of the known values are beyond the bound in some
    rows, an input without a bound that is above 1e4, and buckets that give all rows one id.

    Args:
        spec: The feature spec.
        fitted: Moments, bounds and boundaries.
        columns: Raw column -> values of all rows (N,).
        layout: The order of the encoded columns.
        encoded: `ids` (N, F) and `dense` (N, D).
        rows: Name -> rows that are counted together, (M,) each.

    Returns:
        Values beyond the bound of every feature that has some.
    """
    beyond: Counts = {}
    for name, bound in fitted.bounds.items():
        counts = _beyond(spec, fitted, name, bound, columns, rows)
        if any(counts.values()):
            beyond[name] = counts
    start = 0
    for field in layout.dense:
        unbounded = not isinstance(spec.features[field.name], StatisticFeature)
        if unbounded and field.name not in fitted.bounds:
            _tell_large(field.name, encoded["dense"][:, start : start + field.width])
        start += field.width
    for k, id_field in enumerate(layout.single):
        name = id_field.name
        if isinstance(spec.features[name], NumericFeature):
            _tell_one_bucket(name, fitted.boundaries[name], encoded["ids"][:, k], rows)
    return beyond


def _beyond(
    spec: FeatureSpec,
    fitted: FittedEncoding,
    name: str,
    bound: float,
    columns: raw_values.Columns,
    rows: Mapping[str, np.ndarray],
) -> dict[str, int]:
    """Values beyond the bound; more than a share of them are told."""
    feature = spec.features[name]
    mean, deviation = fitted.standardize.get(name, (0.0, 1.0))
    column = raw_values.column_of(columns, feature.raw_columns(name)[0])
    with np.errstate(over="ignore"):
        values = raw_values.numbers(column).astype(np.float32).astype(np.float64)
    known = np.isfinite(values)
    values = np.where(known, values, mean)
    log = isinstance(feature, NumericFeature) and feature.transform == "log"
    transformed = np.sign(values) * np.log1p(np.abs(values)) if log else values
    beyond = known & (np.abs((transformed - mean) / deviation) > bound)
    counts = {split: int(beyond[chosen].sum()) for split, chosen in rows.items()}
    totals = {split: int(known[chosen].sum()) for split, chosen in rows.items()}
    told = [split for split, n in counts.items() if n > TOLD_SHARE * totals[split]]
    if told:
        every = np.concatenate([chosen[beyond[chosen]] for chosen in rows.values()])
        extreme = values[every[np.abs(transformed[every] - mean).argmax()]]
        _LOG.warning(
            "feature '%s' is bounded where it should tell rows apart: %s lie beyond %g deviations "
            "(mean %.6g, deviation %.6g%s; furthest value %.6g). Give `transform: log`, `buckets` "
            "with `boundaries` of your own, another `bound`, or a larger period.first_at_most",
            name,
            ", ".join(f"{counts[split]} of {totals[split]} known {split} values" for split in told),
            bound,
            mean,
            deviation,
            " of its logarithm" if log else "",
            extreme,
        )
    return counts


def _tell_large(name: str, values: np.ndarray) -> None:
    """Says that an input without a bound is large."""
    largest = float(np.abs(values).max(initial=0.0))
    if largest > LARGE:
        _LOG.warning(
            "feature '%s' is an input of up to %.6g, without a bound: standardise it, give it a "
            "`bound`, or scale it",
            name,
            largest,
        )


def _tell_one_bucket(
    name: str, boundaries: list[float], ids: np.ndarray, rows: Mapping[str, np.ndarray]
) -> None:
    """Says that all rows of a bucketised number fall into one bucket."""
    known = np.concatenate([ids[chosen] for chosen in rows.values()])
    known = known[known >= 0]
    if len(known) and (known == known[0]).all():
        _LOG.warning(
            "feature '%s' has one bucket: all %d known values fall into bucket %d of %d "
            "(boundaries %s). Give `boundaries` of your own",
            name,
            len(known),
            known[0],
            len(boundaries) + 1,
            ", ".join(f"{b:.6g}" for b in boundaries[:5]) + (", ..." if boundaries[5:] else ""),
        )
