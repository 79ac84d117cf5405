"""Upstreams whose layers compute with each row's scenario."""

from __future__ import annotations

import abc
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import tensorflow as tf

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.losses.task_loss import plain_loss
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.scenario_checks import refuse_few_scenarios, refuse_without_scenarios
from lfm4ads_tf.models.task_names import check_name_parts
from lfm4ads_tf.models.two_towers import TowerOutputs, TwoTowers
from lfm4ads_tf.models.upstream import UpstreamModel
from lfm4ads_tf.models.upstream_config import UpstreamConfig

_INSTEAD = "take an upstream for one scenario, such as foundation"


class ScenarioNetworkModel(UpstreamModel):
    """User tower, item tower, and layers over x = [UR; IR; context] and the row's scenario.

    UR and IR are what the towers give, before anything that depends on the scenario: functions of
    one side alone. A subclass says what its layers are, see `interact`; it needs two scenarios or
    more, and has no logits per scenario: `network.shared_head` is not for it.

    Args:
        layout: Columns of the encoded batch.
        network: User and item tower; its block is not read.
        embeddings: Tables.
        options: Options of the model.
        seed: Seed of all initial weights.
        name: Name of the model.

    Raises:
        UserError: There are fewer than two scenarios, or no logits that they share.
    """

    @abc.abstractmethod
    def __init__(
        self,
        layout: FeatureLayout,
        network: NetworkConfig,
        embeddings: EmbeddingsConfig,
        options: Any,
        *,
        seed: int,
        name: str,
    ) -> None:
        super().__init__(name=name)
        self._refuse_heads(network)
        refuse_few_scenarios(type(self).__name__, layout.scenarios, instead=_INSTEAD)
        self.layout = layout
        self.options = options
        self.task_loss = plain_loss(layout.tasks)
        self.backbone = TwoTowers(
            layout,
            network.user_tower,
            network.item_tower,
            embeddings,
            seed=seed,
            name="backbone",
        )

    @abc.abstractmethod
    def interact(
        self, batch: EncodedBatch, towers: TowerOutputs, stream: tf.Tensor, training: bool
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Runs the layers.

        Args:
            batch: The batch; its scenario (B,) is -1 where unknown.
            towers: What the towers give.
            stream: x, (B, d).
            training: Whether it is a step of training.

        Returns:
            What each of `network_layers` gives, (B, .), and the logits (B, T).
        """

    @classmethod
    @abc.abstractmethod
    def network_layers(cls, options: Any, tasks: Sequence[str]) -> list[str]:
        """Names of the activations that `interact` gives, in order.

        Args:
            options: An instance of `Config`.
            tasks: The tasks.
        """

    @classmethod
    def activation_names(cls, config: UpstreamConfig, tasks: Sequence[str]) -> list[str]:
        """`towers` and what the layers give.

        Raises:
            UserError: A task's name cannot be part of a layer's name.
        """
        check_name_parts(tasks)
        return ["towers", *cls.network_layers(config.options, tasks)]

    @classmethod
    def handed_over(
        cls, config: UpstreamConfig, tasks: Sequence[str], stored: Collection[str]
    ) -> list[str]:
        """The last layer, of every task where each has its own; else the last stored one."""
        last = cls.last_layers(config.options, tasks)
        held = [name for name in last if name in stored]
        return held or super().handed_over(config, tasks, stored)

    @classmethod
    def last_layers(cls, options: Any, tasks: Sequence[str]) -> list[str]:
        """Names of the activations that the logits read; here the last one.

        Args:
            options: An instance of `Config`.
            tasks: The tasks.
        """
        return cls.network_layers(options, tasks)[-1:]

    @classmethod
    def check(cls, config: UpstreamConfig, *, ads: bool) -> None:
        """See `UpstreamModel`; there is no logit of a scenario alone."""
        super().check(config, ads=ads)
        cls._refuse_heads(config.network)

    @classmethod
    def check_scenarios(cls, config: UpstreamConfig, *, given: bool) -> None:
        """See `UpstreamModel`; it needs scenarios."""
        what = f"The upstream model '{config.model}'"
        refuse_without_scenarios(what, given=given, instead=_INSTEAD)

    @classmethod
    def check_scenario_rows(cls, config: UpstreamConfig, rows: Mapping[str, int]) -> None:
        """See `UpstreamModel`; it needs two scenarios or more that training knows."""
        known = [scenario for scenario, count in rows.items() if count]
        refuse_few_scenarios(cls.__name__, known, instead=_INSTEAD)

    @property
    def layer_names(self) -> list[str]:
        """Names of the activations, in order; each can be a CR's layer."""
        return ["towers", *self.network_layers(self.options, self.layout.tasks)]

    def call(self, batch: EncodedBatch, training: bool = False) -> tf.Tensor:
        """Logits (B, T)."""
        towers = self.backbone.towers(batch, training=training)
        return self.interact(batch, towers, _stream(towers), training)[1]

    def represent(self, batch: EncodedBatch) -> dict[str, tf.Tensor]:
        """All representations of a batch.

        Returns:
            `UR` (B, d_u), `IR` (B, d_i), and the sample-level CR of every layer by the layer's
            name: `towers` is x (B, d); the others are as the row's scenario makes them.
        """
        towers = self.backbone.towers(batch)
        stream = _stream(towers)
        layers, _ = self.interact(batch, towers, stream, False)
        named = dict(zip(self.layer_names, [stream, *layers], strict=True))
        return {"UR": towers.user, "IR": towers.item, **named}

    @classmethod
    def _refuse_heads(cls, network: NetworkConfig) -> None:
        """Refuses a network whose logits are the scenarios' own alone.

        Raises:
            UserError: It is one.
        """
        if not network.shared_head:
            raise UserError(
                f"{cls.__name__} has no logits of a scenario's own that could stand alone.",
                received="network.shared_head: false",
                fix="leave upstream.network.shared_head out",
            )


def _stream(towers: TowerOutputs) -> tf.Tensor:
    """x = [UR; IR; context], (B, d)."""
    if towers.stream is not None:
        return towers.stream
    parts = [towers.user, towers.item, towers.context]
    return tf.concat([part for part in parts if part is not None], axis=-1)
