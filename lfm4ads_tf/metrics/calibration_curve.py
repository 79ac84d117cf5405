"""Calibration of predicted probabilities by size of the prediction."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.metrics._inputs import labelled_probabilities, tie_starts


def calibration_curve(
    labels: ArrayLike, probabilities: ArrayLike, bins: int = 10
) -> dict[str, NDArray[np.float64] | NDArray[np.int64]]:
    """Mean prediction and mean label in bins of equal row counts, lowest predictions first.

    Rows with equal predictions share the mean of their labels, so that the curve does not
    depend on the order of the rows where a bin ends within a tie.

    Args:
        labels: (B,) 0, 1 or NaN; rows with NaN are left out.
        probabilities: (B,) in [0, 1] on labelled rows.
        bins: At most so many bins; fewer only when there are fewer labelled rows.

    Returns:
        `prediction` (bins,) mean prediction, `label` (bins,) mean label, `rows` (bins,) counts,
        which differ by at most one.

    Raises:
        UserError: for inputs other than these.
    """
    if bins < 1:
        raise UserError("A calibration curve needs at least one bin.", received=bins)
    positive, probability = labelled_probabilities(labels, probabilities)
    count = probability.size
    bins = min(bins, count)
    if not bins:
        return {
            "prediction": np.zeros(0),
            "label": np.zeros(0),
            "rows": np.zeros(0, dtype=np.int64),
        }
    order = np.argsort(probability)
    probability = probability[order]
    starts = tie_starts(probability)
    tied = np.diff(np.r_[starts, count])
    shared = np.add.reduceat(positive[order].astype(np.float64), starts) / tied
    label = np.repeat(shared, tied)  # (N,)
    edges = np.arange(bins + 1, dtype=np.int64) * count // bins
    rows = np.diff(edges)
    return {
        "prediction": np.add.reduceat(probability, edges[:-1]) / rows,
        "label": np.add.reduceat(label, edges[:-1]) / rows,
        "rows": rows,
    }
