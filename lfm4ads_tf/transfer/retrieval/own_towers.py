"""Retrieval by two towers of its own: `model/own`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.retrieval.config import RetrievalConfig
from lfm4ads_tf.transfer.retrieval.method import OWN, RetrievalMethod
from lfm4ads_tf.transfer.retrieval.retriever import Retriever


@dataclass(frozen=True)
class OwnTowers(RetrievalMethod):
    """A `Retriever`: user and item tower with tables of their own; no transfer."""

    @classmethod
    def names(cls, stored: Collection[str]) -> list[str]:
        """See `RetrievalMethod`."""
        return [OWN]

    @classmethod
    def parse(cls, name: str, stored: Collection[str]) -> Self | None:
        """See `RetrievalMethod`."""
        return cls(name) if name == OWN else None

    def build(
        self,
        layout: FeatureLayout,
        config: RetrievalConfig,
        dims: Mapping[str, int],
        *,
        item_counts: np.ndarray,
        task: int,
        seed: int,
    ) -> Retriever:
        """See `RetrievalMethod`."""
        return Retriever(
            layout,
            config.units,
            config.dim,
            config.embeddings,
            item_counts=item_counts,
            loss=config.loss,
            task=task,
            seed=seed,
        )
