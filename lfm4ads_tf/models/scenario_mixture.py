"""Upstreams that give every scenario a vector of its own, made by experts."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import tensorflow as tf

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.interactions.scenario_embedding import group_of
from lfm4ads_tf.interactions.tower_bank import TowerBank
from lfm4ads_tf.models.mixture_model import MixtureModel
from lfm4ads_tf.models.set_tower import side_by_side
from lfm4ads_tf.models.upstream_config import UpstreamConfig

_OWN = "mix"
"""The activation of a row's own scenario."""


class ScenarioMixtureModel(MixtureModel):
    """User tower, item tower, experts that give a vector m_s of each scenario, and their towers.

        z_{s,t} = [w_t Tower_t(m_S) + c_t] + w_{s,t} Tower_{s,t}(m_s) + c_{s,t}

    m_S is the mixture of a shared gate, the last one of the experts' outputs (B, S + 1, h); a row
    of an unknown scenario has the first part alone. The towers' inputs are several sets of
    embeddings, x (K, B, d). See `MixtureModel`.
    """

    @classmethod
    def activation_names(cls, config: UpstreamConfig, tasks: Sequence[str]) -> list[str]:
        """`towers` and `mix`, that of the row's scenario."""
        return ["towers", _OWN]

    @classmethod
    def handed_over(
        cls, config: UpstreamConfig, tasks: Sequence[str], stored: Collection[str]
    ) -> list[str]:
        """The row's own mixture, else the towers."""
        return [_OWN if _OWN in stored else "towers"]

    @property
    def layer_names(self) -> list[str]:
        """Names of the activations, in order; each can be a CR's layer."""
        return ["towers", _OWN]

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
        """See `MixtureModel`; `mix` (B, h) is m_s of the row's own scenario, or m_S."""
        user, item, stream = self._read(batch)
        mixed = self.mixtures(stream)  # (B, S + 1, h)
        place = group_of(batch["scenario"], mixed.shape[1] - 1)
        own = tf.gather(mixed, place, axis=1, batch_dims=1)  # (B, h)
        return {"UR": user, "IR": item, "towers": side_by_side(stream), _OWN: own}
