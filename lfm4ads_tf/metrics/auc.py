"""Area under the ROC curve."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.metrics._inputs import labelled_rows, tie_starts


def auc(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> float | None:
    """Exact area under the ROC curve, as a rank statistic with ties.

    `AUC = sum_{i in P, j in N} w_i w_j ([s_i > s_j] + [s_i = s_j] / 2) / (sum_P w_i sum_N w_j)`,
    in O(n log n).

    Args:
        labels: (B,) 0, 1 or NaN; rows with NaN are left out.
        scores: (B,) finite on labelled rows.
        weights: (B,) not negative; all one when None.

    Returns:
        A value in [0, 1], or None when the labelled rows hold one class only.

    Raises:
        UserError: for inputs other than these.

    Source: Hanley and McNeil, "The meaning and use of the area under a receiver operating
    characteristic (ROC) curve", 1982 (the Mann-Whitney statistic).
    """
    positive, score, known = labelled_rows(labels, scores)
    if weights is None:
        weight = np.ones(score.shape)
    else:
        weight = np.asarray(weights, dtype=np.float64)
        if weight.shape != known.shape:
            raise UserError(
                "Weights must be a vector as long as the labels.",
                received=f"weights {weight.shape}, labels {known.shape}",
            )
        weight = weight[known]
        if not (np.isfinite(weight) & (weight >= 0.0)).all():
            raise UserError("Weights must be finite and not negative.")
    if not weight[positive].sum() or not weight[~positive].sum():
        return None
    order = np.argsort(score)
    starts = tie_starts(score[order])
    # Sums of whole weights stay exact in float64, so the unweighted AUC has no rounding but
    # that of the last division.
    up = np.add.reduceat(np.where(positive, weight, 0.0)[order], starts)
    down = np.add.reduceat(np.where(positive, 0.0, weight)[order], starts)
    below = np.cumsum(down) - down
    return float((up * (below + 0.5 * down)).sum() / (up.sum() * down.sum()))
