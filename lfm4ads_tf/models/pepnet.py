"""Embeddings and layers that gates of scenario and ids multiply, as an upstream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import tensorflow as tf
from pydantic import Field

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.tables import embedded_features
from lfm4ads_tf.interactions.gate_unit import GateUnit
from lfm4ads_tf.interactions.gated_towers import GatedTowers
from lfm4ads_tf.interactions.scenario_embedding import ScenarioEmbedding
from lfm4ads_tf.models.config import NetworkConfig, Units
from lfm4ads_tf.models.key_features import key_features, refuse_unembedded
from lfm4ads_tf.models.scenario_network import ScenarioNetworkModel
from lfm4ads_tf.models.two_towers import TowerOutputs
from lfm4ads_tf.models.upstream_config import UpstreamConfig
from lfm4ads_tf.strict import StrictModel

_PRIORS = "upstream.pepnet.priors"
_UNITS = Annotated[int, Field(ge=1)]


class PEPNetConfig(StrictModel):
    """Gates of scenario and ids.

    Attributes:
        priors: Features whose embeddings the towers' gates read; where absent, the spec's user and
            item key, as far as they are embedded features.
        units: Width of each layer of a task's tower.
        gate_units: Width of each gate's hidden layer.
        scenario_dim: Width of a scenario's embedding, which the gate of x reads.
    """

    priors: list[str] | None = None
    units: Annotated[Units, Field(min_length=1)] = [256, 128, 64]
    gate_units: _UNITS = 64
    scenario_dim: _UNITS = 16


class PEPNet(ScenarioNetworkModel):
    """Gates of scenario and ids, which multiply x and every layer of the tasks' towers.

        x' = x * gate_ep([e_s; sg(x)]),  gate(v) = 2 sigmoid(W_2 relu(W_1 v + b_1) + b_2)
        h_t^l = relu(W_t^l h_t^(l-1) + b_t^l) * gate^l([p; sg(x')])_t,  h_t^0 = x'
        z_t = w_t h_t^n + c_t

    sg is the identity whose gradient is zero: a gate's loss reaches neither x nor x' through what
    the gate reads of them. e_s is a vector of the scenario's own, the last one of S + 1 for an
    unknown scenario; p holds the embeddings of the prior features, from the tables that x is made
    of. See `ScenarioNetworkModel`, `GateUnit` and `GatedTowers`.

    Args:
        layout: Columns of the encoded batch; with two scenarios or more.
        network: User and item tower; its block is not read.
        embeddings: Tables.
        gates: Priors, gates and towers.
        seed: Seed of all initial weights.

    Raises:
        UserError: There are fewer than two scenarios, no logits that they share or no prior, or a
            prior names no embedded feature.

    Source: Chang et al., PEPNet: Parameter and Embedding Personalized Network for Infusing with
    Personalized Prior Information (KDD 2023).
    """

    Config = PEPNetConfig

    def __init__(
        self,
        layout: FeatureLayout,
        network: NetworkConfig = NetworkConfig(),  # noqa: B008 - frozen
        embeddings: EmbeddingsConfig = EmbeddingsConfig(),  # noqa: B008 - frozen
        gates: PEPNetConfig = PEPNetConfig(),  # noqa: B008 - frozen
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(layout, network, embeddings, gates, seed=seed, name="pepnet")
        embedded = [field.name for field in layout.fields]
        refuse_unembedded(gates.priors or [], embedded, _PRIORS)
        _refuse_none(gates.priors or [], embedded)
        self.scenario = ScenarioEmbedding(len(layout.scenarios), gates.scenario_dim, seed=seed)
        width = len(self.backbone.stream_labels())
        self.gate = GateUnit(gates.gate_units, width, seed=seed, name="epnet_gate")
        self.heads = GatedTowers(
            gates.units, len(layout.tasks), gate_units=gates.gate_units, seed=seed
        )

    @classmethod
    def settled(cls, config: UpstreamConfig, spec: FeatureSpec) -> UpstreamConfig:
        """See `UpstreamModel`; the priors, where the configuration does not give them.

        Raises:
            UserError: A prior is no embedded feature, or there is none.
        """
        options: PEPNetConfig = config.options
        priors = key_features(spec, options.priors, _PRIORS)
        _refuse_none(priors, embedded_features(spec))
        update = {config.model: options.model_copy(update={"priors": priors})}
        return config.model_copy(update=update)

    @classmethod
    def network_layers(cls, options: Any, tasks: Sequence[str]) -> list[str]:
        """`epnet`, which is x', and `ppnet_<l>_<task>` of every layer and task."""
        layers = range(1, len(options.units) + 1)
        return ["epnet", *(f"ppnet_{k}_{task}" for k in layers for task in tasks)]

    @classmethod
    def last_layers(cls, options: Any, tasks: Sequence[str]) -> list[str]:
        """See `ScenarioNetworkModel`; one of each task."""
        return cls.network_layers(options, tasks)[-len(tasks) :]

    def interact(
        self, batch: EncodedBatch, towers: TowerOutputs, stream: tf.Tensor, training: bool
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """See `ScenarioNetworkModel`."""
        scenario = self.scenario(batch["scenario"])
        gate = self.gate(tf.concat([scenario, tf.stop_gradient(stream)], axis=-1))
        gated = stream * gate  # (B, d)
        of_field = {name: group for group in towers.fields for name in group.names}
        priors = [of_field[name].named(name) for name in self.options.priors]
        read = tf.concat([*priors, tf.stop_gradient(gated)], axis=-1)  # (B, sum of widths + d)
        hidden, logits = self.heads((gated, read), training=training)
        of_tasks = [each for layer in hidden for each in tf.unstack(layer, axis=1)]  # (B, h_l)
        return [gated, *of_tasks], logits


def _refuse_none(priors: Sequence[str], embedded: Sequence[str]) -> None:
    """Refuses a model without priors.

    Raises:
        UserError: It is one.
    """
    if not priors:
        raise UserError(
            "PEPNet has no prior feature: its gates read the embeddings of ids such as the user's.",
            received="no upstream.pepnet.priors, and no embedded feature that is the spec's user "
            "or item key",
            fix=f"name some of {', '.join(embedded)} in upstream.pepnet.priors",
        )
