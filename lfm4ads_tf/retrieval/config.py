"""Standalone retrieval."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.models.config import Units
from lfm4ads_tf.strict import StrictModel
from lfm4ads_tf.training.config import OptimizerConfig, TrainingConfig


class IndexConfig(StrictModel):
    """The approximate index, see `lfm4ads_tf.retrieval.inverted_index`.

    Attributes:
        lists: Inverted lists; from the number of items when absent.
        probes: Lists read per query; when absent, as many as `recall` takes on users' queries.
        recall: Share of the exact k best items that the tuned number of probes finds.
    """

    lists: int | None = Field(default=None, ge=1)
    probes: int | None = Field(default=None, ge=1)
    recall: float = Field(default=0.98, gt=0, le=1)


class RetrievalConfig(StrictModel):
    """Retrieval models: own towers, or a projection of a stored representation.

    Attributes:
        enabled: Whether `run` trains and exports them.
        methods: `model/own`, `model/IR*UR`, `model/IR*CR_user@<layer>`; without `@<layer>`, the
            last layer that is stored.
        scenarios: Whose positives a model is trained on: scenarios by name, `all` for one model
            over all scenarios, `each` for every scenario that has downstream models.
        loss: `softmax`: in-batch sampled softmax with the logQ correction, on the positives.
            `bce`: cross-entropy of the task's label, on all rows.
        dim: Width of the two towers' output.
        units: Hidden units of each tower.
        k: Items retrieved per user.
        task: Task whose positives are the relevant items; the first task when absent.
        exclude_seen: Whether evaluation leaves a user's training positives out of the candidates;
            `auto`: where fewer than a fifth of the last training period's positives are repeats.
        index: The approximate index of the export.
        training: How own towers are trained.
        projection: How W and b of `model/IR*...` are trained.
    """

    enabled: bool = True
    methods: list[str] = Field(default=["model/own"], min_length=1)
    scenarios: list[str] = Field(default=["all"], min_length=1)
    loss: Literal["softmax", "bce"] = "softmax"
    dim: int = Field(default=32, ge=1)
    units: Units = [64]
    k: int = Field(default=100, ge=1)
    task: str | None = None
    exclude_seen: Literal["auto"] | bool = "auto"
    index: IndexConfig = IndexConfig()
    embeddings: EmbeddingsConfig = EmbeddingsConfig()
    training: TrainingConfig = TrainingConfig(epochs=3)
    projection: TrainingConfig = TrainingConfig(
        epochs=10, patience=2, optimizer=OptimizerConfig(dense_learning_rate=5e-3)
    )

    @field_validator("training", "projection")
    @classmethod
    def _without_task_loss(cls, value: TrainingConfig) -> TrainingConfig:
        """The loss of a retrieval model is `retrieval.loss`."""
        default = TrainingConfig()
        for key in ("loss", "loss_options", "task_weights"):
            if getattr(value, key) != getattr(default, key):
                raise ValueError(f"does not read {key}; set retrieval.loss and retrieval.task")
        return value

    @field_validator("exclude_seen", mode="before")
    @classmethod
    def _one_of_three(cls, value: object) -> object:
        if value == "auto" or isinstance(value, bool):
            return value
        raise ValueError("use auto, true or false")
