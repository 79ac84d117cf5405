"""One line of a calibration figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lfm4ads_tf.metrics import calibration_curve


@dataclass(frozen=True)
class CalibrationLine:
    """Mean label over mean prediction, by size of the prediction.

    Attributes:
        scenario: The scenario, `all` for all of them.
        method: The method.
        task: The task.
        prediction, label: Means in bins of equal row counts, (bins,) each.
    """

    scenario: str
    method: str
    task: str
    prediction: np.ndarray
    label: np.ndarray

    @classmethod
    def over_seeds(
        cls,
        scenario: str,
        method: str,
        task: str,
        seeds: Sequence[tuple[np.ndarray, np.ndarray]],
    ) -> CalibrationLine | None:
        """The mean over seeds of each seed's curve.

        Args:
            scenario, method, task: What is drawn.
            seeds: Labels (M,), NaN where unknown, and probabilities (M,) of every seed; all seeds
                score the same rows.

        Returns:
            The line, None without a labelled row.
        """
        curves = [calibration_curve(labels, scores) for labels, scores in seeds]
        if not curves or not len(curves[0]["rows"]):
            return None
        return cls(
            scenario,
            method,
            task,
            np.mean([c["prediction"] for c in curves], axis=0),
            np.mean([c["label"] for c in curves], axis=0),
        )
