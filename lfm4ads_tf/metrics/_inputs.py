"""Checks shared by the metrics of binary tasks."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lfm4ads_tf.errors import UserError


def labelled_rows(
    labels: ArrayLike, scores: ArrayLike, name: str = "scores"
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.bool_]]:
    """Drops the rows whose label is NaN and checks the rest.

    Args:
        labels: (B,) 0, 1 or NaN (label not known).
        scores: (B,) any finite numbers.
        name: What `scores` are called in an error.

    Returns:
        Labels (N,) as booleans, scores (N,) as float64, and the mask (B,) of the rows kept.

    Raises:
        UserError: for shapes that differ, labels other than 0, 1 and NaN, or a score that is
            not finite on a labelled row.
    """
    label = np.asarray(labels, dtype=np.float64)
    score = np.asarray(scores, dtype=np.float64)
    if label.ndim != 1 or label.shape != score.shape:
        raise UserError(
            f"Labels and {name} must be vectors of one length.",
            received=f"labels {label.shape}, {name} {score.shape}",
            fix="pass one label and one prediction per row, for one task at a time",
        )
    known = ~np.isnan(label)
    label, score = label[known], score[known]
    positive = label == 1.0
    wrong = ~positive & (label != 0.0)
    if wrong.any():
        raise UserError(
            "Labels must be 0, 1 or NaN (not known).",
            received=f"{label[wrong][0]} in {int(wrong.sum())} rows",
            fix="turn the task's column into a binary label in the feature spec",
        )
    wrong = ~np.isfinite(score)
    if wrong.any():
        raise UserError(
            f"The {name} must be finite on every labelled row.",
            received=f"{score[wrong][0]} in {int(wrong.sum())} of {score.size} rows",
            fix="the model has diverged: lower its learning rate or check its numeric inputs",
        )
    return positive, score, known


def labelled_probabilities(
    labels: ArrayLike, probabilities: ArrayLike
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Returns `labelled_rows` for predictions that must lie in [0, 1].

    Raises:
        UserError: as `labelled_rows`, and for a prediction outside [0, 1].
    """
    positive, probability, _ = labelled_rows(labels, probabilities, "probabilities")
    check_probabilities(probability)
    return positive, probability


def check_probabilities(probability: NDArray[np.float64]) -> None:
    """Raises `UserError` unless all of (N,) lie in [0, 1]."""
    wrong = ~((probability >= 0.0) & (probability <= 1.0))
    if wrong.any():
        raise UserError(
            "Probabilities must lie between 0 and 1.",
            received=f"{probability[wrong][0]} in {int(wrong.sum())} rows",
            fix="apply the sigmoid to the model's logits first",
        )


def tie_starts(ordered: NDArray[np.float64]) -> NDArray[np.intp]:
    """Returns where each run of equal values starts in the sorted, non-empty `ordered` (N,)."""
    return np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
