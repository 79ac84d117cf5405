"""The same probability for every row."""

from __future__ import annotations

import numpy as np

from lfm4ads_tf.baselines.baseline import Baseline
from lfm4ads_tf.data.cache import Refresh


class Constant(Baseline):
    """p = mean known label of the task's training rows; its AUC is 0.5.

    What a logloss must be compared with.
    """

    name = "constant"

    def fit(self) -> None:
        """See `Baseline`."""
        self._rates = self.train_rates()

    def predict(self, rows: np.ndarray, refresh: Refresh = "frozen") -> np.ndarray:
        """See `Baseline`; both refreshes are the same."""
        return np.tile(self._rates.astype(np.float32), (len(rows), 1))
