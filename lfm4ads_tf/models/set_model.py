"""Upstreams whose experts read several sets of embeddings, each with towers of its own."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import tf_keras

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.mixture_model import MixtureModel
from lfm4ads_tf.models.upstream_config import UpstreamConfig


class SetModel(MixtureModel):
    """x^k = [u^k; i^k; context^k] from set k, m = Experts(x^0, ..., x^(K-1)); see `MixtureModel`.

    The tables have as many sets as the model's experts ask for. UR is [u^0; ...; u^(K-1)], IR
    likewise.

    Args:
        layout: Columns of the encoded batch.
        network: User and item tower of each set, and whether there is a shared logit.
        embeddings: Tables, of as many sets as `sets` says.
        options: Options of the model.
        experts: Makes m (B, T, h) of x (K, B, d), or of a list of x (B, d_g) of groups of sets.
        task_units: Hidden units of each task's tower.
        set_groups: Numbers of sets that share towers; each has its own where absent.
        seed: Seed of all initial weights.
        name: Name of the model.

    Raises:
        UserError: The tables have another number of sets; see also `MixtureModel`.
    """

    @abc.abstractmethod
    def __init__(
        self,
        layout: FeatureLayout,
        network: NetworkConfig,
        embeddings: EmbeddingsConfig,
        options: Any,
        experts: tf_keras.layers.Layer,
        task_units: Sequence[int],
        *,
        set_groups: Sequence[int] = (),
        seed: int,
        name: str,
    ) -> None:
        super().__init__(
            layout,
            network,
            embeddings,
            options,
            experts,
            task_units,
            set_groups=set_groups or [1] * embeddings.sets,
            seed=seed,
            name=name,
        )

    @classmethod
    @abc.abstractmethod
    def sets(cls, options: Any, tasks: Sequence[str]) -> tuple[int, str]:
        """Number of sets K that it needs, and what they are, for messages.

        Args:
            options: An instance of `Config`.
            tasks: The tasks.
        """

    @classmethod
    def default_sets(cls, config: UpstreamConfig, tasks: Sequence[str]) -> int:
        """As many as the experts ask for."""
        return cls.sets(config.options, tasks)[0]

    @classmethod
    def levels(cls, config: UpstreamConfig, tasks: Sequence[str]) -> dict[str, str]:
        """The tables alone where there are several sets: a downstream's towers read all of them."""
        every = super().levels(config, tasks)
        several = cls.sets(config.options, tasks)[0] > 1
        return {"embeddings": every["embeddings"]} if several else every

    @classmethod
    def refuse(cls, options: Any, embeddings: EmbeddingsConfig, tasks: Sequence[str]) -> None:
        """See `MixtureModel`; the tables have as many sets as it needs."""
        super().refuse(options, embeddings, tasks)
        sets, what = cls.sets(options, tasks)
        if embeddings.sets != sets:
            raise UserError(
                f"{cls.__name__} has a set of embeddings for {what}.",
                received=f"upstream.embeddings.sets: {embeddings.sets}; tasks: {', '.join(tasks)}",
                fix=f"set upstream.embeddings.sets={sets}",
            )
