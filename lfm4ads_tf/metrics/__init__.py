"""Metrics of rankings and probabilities, exact, in NumPy."""

from lfm4ads_tf.metrics.auc import auc
from lfm4ads_tf.metrics.best_possible import best_possible_auc
from lfm4ads_tf.metrics.bootstrap import (
    Interval,
    Resampled,
    auc_difference_interval,
    auc_interval,
    auc_resamples,
)
from lfm4ads_tf.metrics.calibration import calibration
from lfm4ads_tf.metrics.calibration_curve import calibration_curve
from lfm4ads_tf.metrics.calibration_error import calibration_error
from lfm4ads_tf.metrics.comparisons import PairedComparison, paired_comparison
from lfm4ads_tf.metrics.gauc import gauc
from lfm4ads_tf.metrics.holm import holm
from lfm4ads_tf.metrics.information_abundance import information_abundance, set_abundances
from lfm4ads_tf.metrics.logloss import logloss
from lfm4ads_tf.metrics.recall import recall_at_k

__all__ = [
    "Interval",
    "PairedComparison",
    "Resampled",
    "auc",
    "auc_difference_interval",
    "auc_interval",
    "auc_resamples",
    "best_possible_auc",
    "calibration",
    "calibration_curve",
    "calibration_error",
    "gauc",
    "holm",
    "information_abundance",
    "logloss",
    "paired_comparison",
    "recall_at_k",
    "set_abundances",
]
