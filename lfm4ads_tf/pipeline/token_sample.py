"""Diagnostics of an upstream's tokens on a fixed sample of rows."""

from __future__ import annotations

from typing import Any

import numpy as np

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
    """Validation rows on which the tokens of an upstream are told, the same at every call.

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
        # whether there may be tokens; what has none is not asked again
        self._told = len(rows) > 0 and type(model).observed is not UpstreamModel.observed

    def entries(self) -> list[dict[str, Any]]:
        """`token_entries` at the model's weights of now; none of a model without tokens."""
        observed = self._observed() if self._told else {}
        self._told = bool(observed)
        if not observed:
            return []
        labels = targets_of(self._model)(self._cache.labels[self.rows])  # (B, T)
        tasks = self._cache.layout.tasks
        return token_entries(observed, dict(zip(tasks, labels.T, strict=True)), seed=self._seed)

    def numbers(self) -> dict[str, float]:
        """`token_numbers` at the model's weights of now."""
        return token_numbers(self.entries())

    def _observed(self) -> dict[str, ObservedTokens]:
        data = batches(self._cache, self.rows, len(self.rows))
        (observed,) = apply(_tokens, data, self._model)  # one batch
        return dict(observed)


def _tokens(model: Any, batch: Any) -> dict[str, ObservedTokens]:
    observed = model.observed(batch)
    return {name: value for name, value in observed.items() if isinstance(value, ObservedTokens)}
