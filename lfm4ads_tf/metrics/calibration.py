"""Calibration of predicted probabilities in the large."""

from __future__ import annotations

from numpy.typing import ArrayLike

from lfm4ads_tf.metrics._inputs import labelled_probabilities


def calibration(labels: ArrayLike, probabilities: ArrayLike) -> float | None:
    """Mean prediction over mean label: above 1 the model predicts too much.

    Args:
        labels: (B,) 0, 1 or NaN; rows with NaN are left out.
        probabilities: (B,) in [0, 1] on labelled rows.

    Returns:
        `mean(p) / mean(y)`, or None when no labelled row is positive.

    Raises:
        UserError: for inputs other than these.
    """
    positive, probability = labelled_probabilities(labels, probabilities)
    if not positive.any():
        return None
    return float(probability.mean() / positive.mean())
