"""Upstreams that give every scenario a vector of its own, made by experts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import tensorflow as tf

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.interactions.block import mixture_names
from lfm4ads_tf.interactions.scenario_embedding import group_of
from lfm4ads_tf.interactions.tower_bank import TowerBank
from lfm4ads_tf.models.mixture_model import MixtureModel
from lfm4ads_tf.models.scenario_checks import check_mixtures
from lfm4ads_tf.models.set_tower import side_by_side
from lfm4ads_tf.models.upstream_config import UpstreamConfig

_OWN = "mix"
"""The activation of a row's own scenario."""


class ScenarioMixtureModel(MixtureModel):
    """User tower, item tower, experts that give a vector m_s of each scenario, and their towers.

        z_{s,t} = [w_t Tower_t(m_S) + c_t] + w_{s,t} Tower_{s,t}(m_s) + c_{s,t}

    m_S is the mixture of a shared gate, the last one of the experts' outputs (B, S + 1, h); a row
    of an unknown scenario has the first part alone, without it the mean by the scenarios' shares.
    The towers' inputs are several sets of embeddings, x (K, B, d). See `MixtureModel`.

    Attributes:
        options: Has `mixtures_of`, the scenarios whose vector is a layer of its own for all rows.
    """

    options: Any

    @classmethod
    def activation_names(cls, config: UpstreamConfig, tasks: Sequence[str]) -> list[str]:
        """`towers`, `mix`, that of the row's scenario, and `mix_<scenario>` of those asked for."""
        return scenario_layers(config.options.mixtures_of)

    @classmethod
    def handed_over(
        cls, config: UpstreamConfig, tasks: Sequence[str], stored: Collection[str]
    ) -> list[str]:
        """The mixtures of the scenarios asked for, else the row's own, else the towers."""
        return scenario_layers_handed_over(config.options.mixtures_of, stored)

    @classmethod
    def refuse(cls, options: Any, embeddings: EmbeddingsConfig, tasks: Sequence[str]) -> None:
        """See `MixtureModel`; scenarios with layers of their own can be named as such."""
        super().refuse(options, embeddings, tasks)
        check_mixtures(options.mixtures_of)

    @property
    def layer_names(self) -> list[str]:
        """Names of the activations, in order; each can be a CR's layer."""
        return scenario_layers(self.options.mixtures_of)

    def made_heads(self, units: Sequence[int], *, shared: bool, seed: int) -> TowerBank:
        """See `MixtureModel`; a tower for each scenario and task."""
        sizes = len(self.layout.scenarios), len(self.layout.tasks)
        return TowerBank(
            units, *sizes, per="both", shared=shared, seed=seed, name="scenario_towers"
        )

    def mixtures(self, stream: tf.Tensor | list[tf.Tensor], training: bool = False) -> tf.Tensor:
        """The vector of every scenario and the shared one behind them, (B, S + 1, h)."""
        return self.experts(stream, training=training)

    def tower_logits(
        self, mixed: tf.Tensor, scenario: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        """See `MixtureModel`; from m (B, S + 1, h)."""
        first = [mixed.shape[1] - 1] if self.heads.shared else []  # what tower 0 reads
        order = [*first, *range(mixed.shape[1] - 1)]
        read = tf.repeat(tf.gather(mixed, order, axis=1), len(self.layout.tasks), axis=1)
        return self.heads(read, scenario, training=training)  # of (B, C T, h)

    def represent(self, batch: EncodedBatch) -> dict[str, tf.Tensor]:
        """See `MixtureModel`.

        `mix` (B, h) is m_s of the row's own scenario, or m_S; `mix_<scenario>` (B, h) is that
        scenario's, of every row.
        """
        user, item, stream = self._read(batch)
        mixed = self.mixtures(stream)  # (B, S + 1, h)
        place = group_of(batch["scenario"], mixed.shape[1] - 1)
        own = tf.gather(mixed, place, axis=1, batch_dims=1)  # (B, h)
        asked = [mixed[:, self.layout.scenarios.index(s)] for s in self.options.mixtures_of]
        named = dict(zip(self.layer_names, [side_by_side(stream), own, *asked], strict=True))
        return {"UR": user, "IR": item, **named}


def scenario_layers(mixtures_of: Sequence[str]) -> list[str]:
    """Names of the layers of a model whose scenarios have mixtures, in order.

    Args:
        mixtures_of: Scenarios whose mixture is a layer of its own.
    """
    return ["towers", _OWN, *mixture_names(mixtures_of)]


def scenario_layers_handed_over(mixtures_of: Sequence[str], stored: Collection[str]) -> list[str]:
    """The stored mixtures of the scenarios asked for, else the row's own, else the towers.

    Args:
        mixtures_of: Scenarios whose mixture is a layer of its own.
        stored: Layers with a stored CR.
    """
    named = [name for name in mixture_names(mixtures_of) if name in stored]
    return named or [_OWN if _OWN in stored else "towers"]
