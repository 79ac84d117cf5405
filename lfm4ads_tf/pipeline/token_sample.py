"""Diagnostics of an upstream's tokens on a fixed sample of rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.data.input import apply, batches
from lfm4ads_tf.diagnostics.token_diagnosis import token_entries, token_numbers
from lfm4ads_tf.interactions.observed_tokens import ObservedTokens
from lfm4ads_tf.models.upstream import UpstreamModel
from lfm4ads_tf.pipeline.scoring import targets_of
from lfm4ads_tf.seeding import derive

ROWS = 4096
"""The most rows of a sample."""


class TokenSample:
    """Validation rows on which an upstream is observed, its tokens above all, the same every time.

    Args:
        model: The upstream.
        cache: The log.
        seed: Seed of the sample, of k-means and of shuffled rows.

    Attributes:
        rows: The sample, at most `ROWS` of the validation rows, in order.
    """

    def __init__(self, model: UpstreamModel, cache: EncodedCache, seed: int) -> None:
        self._model, self._cache, self._seed = model, cache, seed
        rows = cache.rows_of("valid")
        draw = np.random.default_rng(derive(seed, "tokens"))
        self.rows = np.sort(draw.choice(rows, min(ROWS, len(rows)), replace=False))
        # whether there may be something to observe; what has nothing is not asked again
        self._told = len(rows) > 0 and type(model).observed is not UpstreamModel.observed

    def entries(self) -> list[dict[str, Any]]:
        """`token_entries` at the model's weights of now; none of a model without tokens."""
        return self._entries(self._told_now())

    def numbers(self) -> dict[str, float]:
        """At the model's weights of now `token_numbers`, and means over the sample of what else the
        model is observed by."""
        observed = self._told_now()
        means = {
            name: float(tf.reduce_mean(tf.cast(value, tf.float64)))
            for name, value in observed.items()
            if not isinstance(value, ObservedTokens)
        }
        return means | token_numbers(self._entries(observed))

    def _entries(self, observed: Mapping[str, Any]) -> list[dict[str, Any]]:
        tokens = {n: value for n, value in observed.items() if isinstance(value, ObservedTokens)}
        if not tokens:
            return []
        labels = targets_of(self._model)(self._cache.labels[self.rows])  # (B, T)
        tasks = self._cache.layout.tasks
        return token_entries(tokens, dict(zip(tasks, labels.T, strict=True)), seed=self._seed)

    def _told_now(self) -> dict[str, Any]:
        observed = self._observed() if self._told else {}
        self._told = bool(observed)
        return observed

    def _observed(self) -> dict[str, Any]:
        data = batches(self._cache, self.rows, len(self.rows))
        (observed,) = apply(_observed, data, self._model)  # one batch
        return dict(observed)


def _observed(model: Any, batch: Any) -> dict[str, Any]:
    return dict(model.observed(batch))
