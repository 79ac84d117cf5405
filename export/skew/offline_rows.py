"""Logged rows as training sees them: encoded and scored by the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.fitted_encoding import FittedEncoding


@dataclass(frozen=True)
class OfflineRows:
    """Logged rows as training sees them.

    Attributes:
        encoder, fitted: The run's.
        columns: What the encoder read.
        encoded: See `encode_columns`.
        representations: Name -> (R, d + 1).
        features: Names of the features that the model reads.
        scores: (R, T).
    """

    encoder: Encoder
    fitted: FittedEncoding
    columns: Mapping[str, Any]
    encoded: Mapping[str, Any]
    representations: Mapping[str, np.ndarray]
    features: list[str]
    scores: np.ndarray
