"""Retrieval by a projected user representation against the stored IR: `model/IR*<source>`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.retrieval.config import RetrievalConfig
from lfm4ads_tf.training.config import TrainingConfig
from lfm4ads_tf.transfer.retrieval.method import RetrievalMethod
from lfm4ads_tf.transfer.retrieval.projected_retriever import ProjectedRetriever

_PREFIX = "model/IR*"
_CROSS = "CR_user@"


@dataclass(frozen=True)
class Projection(RetrievalMethod):
    """A `ProjectedRetriever` of UR or a user's CR.

    `model/IR*CR_user` means the last layer that is stored.

    Attributes:
        source: The representation on the user side.
    """

    source: str
    stored_items: ClassVar[bool] = True

    @classmethod
    def names(cls, stored: Collection[str]) -> list[str]:
        """See `RetrievalMethod`."""
        return [_PREFIX + n for n in stored if n == "UR" or n.startswith(_CROSS)]

    @classmethod
    def parse(cls, name: str, stored: Collection[str]) -> Self | None:
        """See `RetrievalMethod`."""
        if name == f"{_PREFIX}CR_user":
            plain = [n for n in stored if n.startswith(_CROSS) and "~" not in n]
            name = _PREFIX + plain[-1] if plain else name
        if name not in cls.names(stored):
            return None
        return cls(name, name.removeprefix(_PREFIX))

    @property
    def user_sources(self) -> list[str]:
        """See `RetrievalMethod`."""
        return [self.source]

    def training(self, config: RetrievalConfig) -> TrainingConfig:
        """See `RetrievalMethod`."""
        return config.projection

    def build(
        self,
        layout: FeatureLayout,
        config: RetrievalConfig,
        dims: Mapping[str, int],
        *,
        item_counts: np.ndarray,
        task: int,
        seed: int,
    ) -> ProjectedRetriever:
        """See `RetrievalMethod`."""
        return ProjectedRetriever(
            self.source,
            dims["IR"],
            item_counts=item_counts,
            loss=config.loss,
            task=task,
            seed=seed,
        )
