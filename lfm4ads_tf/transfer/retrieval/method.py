"""Names of retrieval methods, read into what they mean."""

from __future__ import annotations

import abc
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.retrieval.config import RetrievalConfig
from lfm4ads_tf.training.config import TrainingConfig
from lfm4ads_tf.transfer.retrieval.registry import RETRIEVAL_METHODS
from lfm4ads_tf.transfer.retrieval.two_vector_model import TwoVectorModel

OWN = "model/own"
POPULARITY = "model/popularity"
"""Positives of each item in training: scored beside the methods, never trained or exported."""


@dataclass(frozen=True)
class RetrievalMethod(abc.ABC):
    """A parsed retrieval method: what it reads, its model, and how that is trained.

    Attributes:
        name: As in results.
        stored_items: Whether the items' vectors are the stored IR, instead of what the model makes
            of their features.
    """

    name: str
    stored_items: ClassVar[bool] = False

    @classmethod
    @abc.abstractmethod
    def names(cls, stored: Collection[str]) -> list[str]:
        """Names of all methods of this form.

        Args:
            stored: Names of all representations that the run stores, layers in their order.
        """

    @classmethod
    @abc.abstractmethod
    def parse(cls, name: str, stored: Collection[str]) -> Self | None:
        """The method of a name; None where the name has another form or cannot be read.

        Args:
            name: The method.
            stored: As for `names`.
        """

    @abc.abstractmethod
    def build(
        self,
        layout: FeatureLayout,
        config: RetrievalConfig,
        dims: Mapping[str, int],
        *,
        item_counts: np.ndarray,
        task: int,
        seed: int,
    ) -> TwoVectorModel:
        """A new model, not called yet.

        Args:
            layout: Columns of the encoded batch.
            config: Sizes and loss.
            dims: Widths of the stored representations.
            item_counts: Training positives per item code, (items,).
            task: Column of the labels.
            seed: Seed of its initial weights.
        """

    @property
    def sources(self) -> list[str]:
        """Stored representations that training reads."""
        return [*self.user_sources, *(["IR"] if self.stored_items else [])]

    @property
    def user_sources(self) -> list[str]:
        """Stored representations that the user side reads."""
        return []

    def training(self, config: RetrievalConfig) -> TrainingConfig:
        """How its model is trained."""
        return config.training


def parse_retrieval_method(name: str, stored: Collection[str]) -> RetrievalMethod:
    """Reads a method's name, such as `model/own`, `model/IR*UR` or `model/IR*CR_user@<layer>`.

    Args:
        name: The method.
        stored: Names of all representations that the run stores, layers in their order.

    Raises:
        UserError: The form or the representation is unknown.
    """
    forms: list[type[RetrievalMethod]] = [RETRIEVAL_METHODS[form] for form in RETRIEVAL_METHODS]
    for form in forms:
        method = form.parse(name, stored)
        if method is not None:
            return method
    known = [each for form in forms for each in form.names(stored)]
    raise UserError(
        f"The retrieval method '{name}' is unknown.{nearest(name, known)}",
        fix=f"use one of {', '.join(known)}",
    )
