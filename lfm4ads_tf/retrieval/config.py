"""Standalone retrieval."""

from __future__ import annotations

from pydantic import Field

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.models.config import Units
from lfm4ads_tf.strict import StrictModel
from lfm4ads_tf.training.config import TrainingConfig


class RetrievalConfig(StrictModel):
    """The own-tower retriever.

    Attributes:
        dim: Width of the two towers' output.
        units: Hidden units of each tower.
        k: Items retrieved per user.
        task: Task whose positives are the relevant items; the first task when absent.
    """

    enabled: bool = True
    dim: int = Field(default=32, ge=1)
    units: Units = [64]
    k: int = Field(default=100, ge=1)
    task: str | None = None
    embeddings: EmbeddingsConfig = EmbeddingsConfig()
    training: TrainingConfig = TrainingConfig(epochs=3)
