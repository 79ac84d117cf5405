"""The star topology: weights that all scenarios share times those of each, as an upstream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import tensorflow as tf
from pydantic import Field

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.interactions.partitioned_norm import PartitionedNorm
from lfm4ads_tf.interactions.scenario_embedding import ScenarioEmbedding
from lfm4ads_tf.interactions.star_network import StarNetwork
from lfm4ads_tf.models.config import NetworkConfig, Units
from lfm4ads_tf.models.scenario_network import ScenarioNetworkModel
from lfm4ads_tf.models.tower import Tower
from lfm4ads_tf.models.two_towers import TowerOutputs
from lfm4ads_tf.models.upstream_config import UpstreamConfig
from lfm4ads_tf.strict import StrictModel


class STARConfig(StrictModel):
    """Star topology.

    Attributes:
        units: Width of each hidden layer, which all scenarios have alike.
        momentum: What is left of earlier rows' weight in the moving statistics of a scenario after
            a batch with rows of it.
        auxiliary_units: Hidden units of the auxiliary network; empty means W [e_s; x] + b.
        scenario_dim: Width of a scenario's embedding, which the auxiliary network reads.
    """

    units: Annotated[Units, Field(min_length=1)] = [256, 128, 64]
    momentum: float = Field(default=0.99, gt=0, lt=1)
    auxiliary_units: Units = [64]
    scenario_dim: Annotated[int, Field(ge=1)] = 16


class STAR(ScenarioNetworkModel):
    """z = Star_s(Norm_s(x)) + Auxiliary([e_s; x]), logits (B, T) of a row of scenario s.

    Norm_s is `PartitionedNorm`, Star_s `StarNetwork`, e_s a vector of the scenario's own. A row of
    an unknown scenario is normalised as all rows are, has what the scenarios share alone of the
    star, and zeros in place of e_s. See `ScenarioNetworkModel`.

    Args:
        layout: Columns of the encoded batch; with two scenarios or more.
        network: User and item tower; its block is not read.
        embeddings: Tables.
        star: Layers, auxiliary network and moving statistics.
        seed: Seed of all initial weights.

    Raises:
        UserError: There are fewer than two scenarios, or no logits that they share.

    Source: Sheng et al., One Model to Serve All: Star Topology Adaptive Recommender for
    Multi-Domain CTR Prediction (CIKM 2021).
    """

    Config = STARConfig

    def __init__(
        self,
        layout: FeatureLayout,
        network: NetworkConfig = NetworkConfig(),  # noqa: B008 - frozen
        embeddings: EmbeddingsConfig = EmbeddingsConfig(),  # noqa: B008 - frozen
        star: STARConfig = STARConfig(),  # noqa: B008 - frozen
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(layout, network, embeddings, star, seed=seed, name="star")
        scenarios, tasks = len(layout.scenarios), len(layout.tasks)
        self.norm = PartitionedNorm(scenarios, momentum=star.momentum)
        self.heads = StarNetwork(star.units, scenarios, tasks, seed=seed, name="star_layers")
        self.scenario = ScenarioEmbedding(scenarios, star.scenario_dim, unknown=False, seed=seed)
        self.auxiliary = Tower([*star.auxiliary_units, tasks], seed=seed, name="auxiliary")

    @classmethod
    def network_layers(cls, options: Any, tasks: Sequence[str]) -> list[str]:
        """`norm`, and `star_1` ... of the hidden layers."""
        return ["norm", *(f"star_{k}" for k in range(1, len(options.units) + 1))]

    @classmethod
    def check_scenario_rows(cls, config: UpstreamConfig, rows: Mapping[str, int]) -> None:
        """See `ScenarioNetworkModel`; every scenario of the log is in training."""
        super().check_scenario_rows(config, rows)
        unseen = [name for name, count in rows.items() if not count]
        if unseen:
            raise UserError(
                "STAR has weights and statistics for each scenario, and training has no row of "
                f"{'one' if len(unseen) == 1 else 'some'} in the log.",
                received=f"no training row of {', '.join(repr(name) for name in unseen)}",
                fix="leave its rows out of the log or move `split` to later, or take an upstream "
                "that shares all layers, such as foundation",
            )

    def interact(
        self, batch: EncodedBatch, towers: TowerOutputs, stream: tf.Tensor, training: bool
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """See `ScenarioNetworkModel`."""
        scenario = batch["scenario"]
        normed = self.norm((stream, scenario), training=training)
        hidden, logits = self.heads((normed, scenario))
        beside = self.auxiliary(tf.concat([self.scenario(scenario), stream], axis=-1))
        return [normed, *hidden], logits + beside
