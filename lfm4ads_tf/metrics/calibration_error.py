"""Calibration of predicted probabilities, as one number."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from lfm4ads_tf.metrics.calibration_curve import calibration_curve


def calibration_error(labels: ArrayLike, probabilities: ArrayLike, bins: int = 10) -> float | None:
    """Expected calibration error: sum_b rows_b / rows * |mean prediction_b - mean label_b|.

    Args:
        labels: (B,) 0, 1 or NaN; rows with NaN are left out.
        probabilities: (B,) in [0, 1] on labelled rows.
        bins: Bins of equal row counts, see `calibration_curve`.

    Returns:
        The error in [0, 1], or None without a labelled row.

    Raises:
        UserError: for inputs other than these.

    Source: Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian Binning (AAAI
    2015), with bins of equal counts.
    """
    curve = calibration_curve(labels, probabilities, bins)
    if not len(curve["rows"]):
        return None
    gaps = np.abs(curve["prediction"] - curve["label"])
    return float(np.average(gaps, weights=curve["rows"]))
