"""One bottom network for all tasks, as an upstream."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.interactions.expert_bank import ExpertBank
from lfm4ads_tf.models.config import NetworkConfig, Units
from lfm4ads_tf.models.mixture_model import MixtureModel
from lfm4ads_tf.strict import StrictModel


class SharedBottomConfig(StrictModel):
    """A bottom for all tasks and a tower for each.

    Attributes:
        expert_units: Width of each layer of the bottom.
        task_units: Hidden units of each task's tower; empty means logits of the bottom's output.
    """

    expert_units: Annotated[Units, Field(min_length=1)] = [256, 128]
    task_units: Units = [64]


class SharedBottom(MixtureModel):
    """z_t = TaskTower_t(E(x)) with one expert E for all tasks; see `MixtureModel`.

    Args:
        layout: Columns of the encoded batch.
        network: User and item tower, and whether there is a shared logit; its block is not read.
        embeddings: Tables.
        sizes: Bottom and task towers.
        seed: Seed of all initial weights.

    Source: Caruana, Multitask Learning (Machine Learning 28, 1997).
    """

    Config = SharedBottomConfig
    one_mixture = True

    def __init__(
        self,
        layout: FeatureLayout,
        network: NetworkConfig = NetworkConfig(),  # noqa: B008 - frozen
        embeddings: EmbeddingsConfig = EmbeddingsConfig(),  # noqa: B008 - frozen
        sizes: SharedBottomConfig = SharedBottomConfig(),  # noqa: B008 - frozen
        *,
        seed: int = 0,
    ) -> None:
        bottom = ExpertBank([0], sizes.expert_units, seed=seed, name="bottom")
        super().__init__(
            layout,
            network,
            embeddings,
            sizes,
            bottom,
            sizes.task_units,
            seed=seed,
            name="shared_bottom",
        )
