"""A linear model of everything that the upstream reads."""

from __future__ import annotations

import warnings
from typing import Any

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
    Validation rows are not read. A task whose known labels are of one class among the rows that are
    read takes the rate of its training rows.
    """

    name = "logistic_regression"
    package = "sklearn"
    max_rows = 500_000

    @classmethod
    def load(cls) -> None:
        """See `Baseline`."""
        from sklearn.linear_model import LogisticRegression  # noqa: F401

    def fit(self) -> None:
        """See `Baseline`."""
        from sklearn.linear_model import LogisticRegression as Linear

        self._table = SparseTable(self.cache, branches=self.branches)
        train = self.training_rows()
        values = self._table.take(train)
        self._models: list[Any] = []
        self._rates = self.train_rates()
        for k, task in enumerate(self.cache.layout.tasks):
            labels = self.cache.labels[train, k]
            known = np.isfinite(labels)
            if self.tells_one_class(task, labels[known], self._rates[k]):
                self._models.append(None)
                continue
            model = Linear(C=INVERSE_STRENGTH, max_iter=_ITERATIONS, tol=1e-3)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the limit of iterations is one of its settings
                model.fit(values if known.all() else values[known], labels[known] == 1)
            self._models.append(model)
        self.facts = {
            "C": INVERSE_STRENGTH,
            "iterations": [0 if m is None else int(m.n_iter_[0]) for m in self._models],
        }

    def predict(self, rows: np.ndarray, refresh: Refresh = "frozen") -> np.ndarray:
        """See `Baseline`."""

        def score(block: np.ndarray) -> np.ndarray:
            values = self._table.take(block, refresh)
            found = [
                np.full(len(block), rate) if model is None else model.predict_proba(values)[:, 1]
                for model, rate in zip(self._models, self._rates, strict=True)
            ]
            return np.stack(found, axis=1).astype(np.float32)

        return self.in_blocks(score, rows)
