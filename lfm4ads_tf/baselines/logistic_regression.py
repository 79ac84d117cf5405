"""A linear model of everything that the upstream reads."""

from __future__ import annotations

import warnings

import numpy as np

from lfm4ads_tf.baselines.baseline import Baseline
from lfm4ads_tf.baselines.sparse_table import SparseTable
from lfm4ads_tf.data.cache import Refresh

INVERSE_STRENGTH = 0.01
"""scikit-learn's `C`."""
_ITERATIONS = 100


class LogisticRegression(Baseline):
    """L2-regularised logistic regression over one-hot ids, bags and standardised numbers.

        min_w |w|^2 / 2 + C sum_rows BCE(sigmoid(w x + b), y)

    One model per task by scikit-learn's L-BFGS, C = `INVERSE_STRENGTH`, at most 100 iterations.
    Validation rows are not read.
    """

    name = "logistic_regression"
    package = "sklearn"
    max_rows = 500_000

    def fit(self) -> None:
        """See `Baseline`."""
        from sklearn.linear_model import LogisticRegression as Linear

        self._table = SparseTable(self.cache, branches=self.branches)
        train = self.training_rows()
        values = self._table.take(train)
        self._models = []
        for k in range(len(self.cache.layout.tasks)):
            labels = self.cache.labels[train, k]
            known = np.isfinite(labels)
            model = Linear(C=INVERSE_STRENGTH, max_iter=_ITERATIONS, tol=1e-3)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the limit of iterations is one of its settings
                model.fit(values if known.all() else values[known], labels[known] == 1)
            self._models.append(model)
        self.facts = {
            "C": INVERSE_STRENGTH,
            "iterations": [int(m.n_iter_[0]) for m in self._models],
        }

    def predict(self, rows: np.ndarray, refresh: Refresh = "frozen") -> np.ndarray:
        """See `Baseline`."""

        def score(block: np.ndarray) -> np.ndarray:
            values = self._table.take(block, refresh)
            found = [model.predict_proba(values)[:, 1] for model in self._models]
            return np.stack(found, axis=1).astype(np.float32)

        return self.in_blocks(score, rows)
