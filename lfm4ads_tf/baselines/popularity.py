"""How often an item's earlier rows were positive."""

from __future__ import annotations

import numpy as np

from lfm4ads_tf.baselines.baseline import Baseline
from lfm4ads_tf.data.cache import Refresh
from lfm4ads_tf.data.splits import TEST, TRAIN, VALID

SMOOTHING = 20.0
"""Weight of the prior, in rows; the default of the feature kind `statistic`."""


class Popularity(Baseline):
    """The item's smoothed rate of positives.

        p(i) = (s_i + m p) / (n_i + m)

    with n_i known labels of the item and s_i positives among them, p the rate of all rows that
    count, m = `SMOOTHING`. Frozen, the training rows count; daily, the valid and test rows of
    periods before the row's own count too.
    """

    name = "popularity"

    def fit(self) -> None:
        """See `Baseline`."""
        self._items = int(self.cache.item.max()) + 1
        self._frozen = self._counts(np.flatnonzero(self.cache.split == TRAIN))

    def predict(self, rows: np.ndarray, refresh: Refresh = "frozen") -> np.ndarray:
        """See `Baseline`."""
        if refresh == "frozen":
            return self._rates(rows, *self._frozen)
        rates = np.empty((len(rows), self.cache.labels.shape[1]), np.float32)
        held = np.flatnonzero(np.isin(self.cache.split, (VALID, TEST)))
        order = np.argsort(self.cache.period[held], kind="stable")
        held = held[order]
        known, positive = (part.copy() for part in self._frozen)
        done = 0
        periods = self.cache.period[rows]
        for period in np.unique(periods):
            until = int(np.searchsorted(self.cache.period[held], period))
            more = self._counts(held[done:until])
            known, positive, done = known + more[0], positive + more[1], until
            in_period = periods == period
            rates[in_period] = self._rates(rows[in_period], known, positive)
        return rates

    def _counts(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Known labels and positives by item, (I, T) each."""
        labels, items = self.cache.labels[rows], self.cache.item[rows]
        counts = [
            np.stack([np.bincount(items, of[:, k], self._items) for k in range(of.shape[1])], 1)
            for of in (np.isfinite(labels), labels == 1)
        ]
        return counts[0], counts[1]

    def _rates(self, rows: np.ndarray, known: np.ndarray, positive: np.ndarray) -> np.ndarray:
        prior = positive.sum(axis=0) / known.sum(axis=0)  # (T,)
        items = self.cache.item[rows]
        rate = (positive[items] + SMOOTHING * prior) / (known[items] + SMOOTHING)
        return rate.astype(np.float32)
