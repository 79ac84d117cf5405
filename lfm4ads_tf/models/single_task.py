"""A network of its own for every task, as an upstream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.interactions.expert_bank import ExpertBank
from lfm4ads_tf.models.config import NetworkConfig, Units
from lfm4ads_tf.models.mixture_model import MixtureModel
from lfm4ads_tf.models.upstream_config import UpstreamConfig
from lfm4ads_tf.strict import StrictModel


class SingleTaskConfig(StrictModel):
    """An expert and a tower for each task.

    Attributes:
        expert_units: Width of each layer of an expert.
        task_units: Hidden units of each task's tower; empty means logits of the expert's output.
    """

    expert_units: Annotated[Units, Field(min_length=1)] = [256, 128]
    task_units: Units = [64]


class SingleTask(MixtureModel):
    """z_t = TaskTower_t(E_t(x^t)): a set of embeddings, towers, an expert and a tower per task.

    Nothing but the batch is shared, so that each task is trained as if it were alone. The tables
    have as many sets as there are tasks; x^t = [u^t; i^t; context^t] is what set t gives.

    Args:
        layout: Columns of the encoded batch.
        network: User and item tower, and whether there is a shared logit; its block is not read.
        embeddings: Tables, of as many sets as there are tasks.
        sizes: Experts and task towers.
        seed: Seed of all initial weights.

    Raises:
        UserError: The tables have another number of sets.
    """

    Config = SingleTaskConfig

    def __init__(
        self,
        layout: FeatureLayout,
        network: NetworkConfig = NetworkConfig(),  # noqa: B008 - frozen
        embeddings: EmbeddingsConfig = EmbeddingsConfig(),  # noqa: B008 - frozen
        sizes: SingleTaskConfig = SingleTaskConfig(),  # noqa: B008 - frozen
        *,
        seed: int = 0,
    ) -> None:
        own = ExpertBank(range(len(layout.tasks)), sizes.expert_units, seed=seed)
        super().__init__(
            layout,
            network,
            embeddings,
            sizes,
            own,
            sizes.task_units,
            per_set=True,
            seed=seed,
            name="single_task",
        )

    @classmethod
    def default_sets(cls, tasks: Sequence[str]) -> int:
        """A set of embeddings for each task."""
        return len(tasks)

    @classmethod
    def levels(cls, config: UpstreamConfig, tasks: Sequence[str]) -> dict[str, str]:
        """The tables alone where there are several sets: a downstream's towers read all of them."""
        every = super().levels(config, tasks)
        return every if len(tasks) == 1 else {"embeddings": every["embeddings"]}

    @classmethod
    def refuse(cls, options: Any, embeddings: EmbeddingsConfig, tasks: Sequence[str]) -> None:
        """See `MixtureModel`; there is a set of embeddings for each task."""
        super().refuse(options, embeddings, tasks)
        if embeddings.sets != len(tasks):
            raise UserError(
                "The upstream model single_task has a set of embeddings for each task.",
                received=f"upstream.embeddings.sets: {embeddings.sets}; tasks: {', '.join(tasks)}",
                fix=f"set upstream.embeddings.sets={len(tasks)}",
            )
