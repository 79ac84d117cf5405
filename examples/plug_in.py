"""A plug-in: an upstream, an interaction layer, a loss and an adapter of one's own.

    python train.py run --config examples/plug_in.yaml

`plugins: [examples/plug_in.py]` in the configuration imports this file; the names under which the
classes are registered are then known wherever a configuration or a method may name one. Nothing in
the package is edited. docs/add_a_model.md explains every part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import tensorflow as tf
import tf_keras
from pydantic import Field

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.interactions.block import InteractionBlock, layer_names
from lfm4ads_tf.interactions.config import BlockConfig, LayerConfig
from lfm4ads_tf.interactions.inputs import BlockInputs
from lfm4ads_tf.interactions.layer import InteractionLayer
from lfm4ads_tf.interactions.registry import INTERACTIONS
from lfm4ads_tf.losses.registry import LOSSES
from lfm4ads_tf.losses.row_weights import task_columns
from lfm4ads_tf.losses.task_loss import plain_loss
from lfm4ads_tf.models.backbone import Backbone
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.heads import build_heads
from lfm4ads_tf.models.registry import UPSTREAMS
from lfm4ads_tf.models.upstream import UpstreamModel
from lfm4ads_tf.models.upstream_config import UpstreamConfig
from lfm4ads_tf.optim.optimizer_part import OptimizerPart
from lfm4ads_tf.optim.variable_paths import within
from lfm4ads_tf.seeding import glorot
from lfm4ads_tf.strict import StrictModel
from lfm4ads_tf.training.config import OptimizerConfig
from lfm4ads_tf.transfer.adapters.adapter import Adapted, Adapter
from lfm4ads_tf.transfer.adapters.registry import ADAPTERS
from lfm4ads_tf.transfer.config import AdapterConfig


@LOSSES.register("focal")
def focal(
    labels: tf.Tensor,
    logits: tf.Tensor,
    task_weights: tf.Tensor,
    row_weights: tf.Tensor | None = None,
    /,
    *,
    gamma: float = 2.0,
) -> tf.Tensor:
    """L = sum_t lambda_t mean_b w_bt (1 - p_bt)^gamma (-log p_bt), p the label's probability.

    Source: Lin et al., Focal Loss for Dense Object Detection (ICCV 2017), equation 4.
    """
    known = tf.math.is_finite(labels)
    safe = tf.where(known, labels, tf.zeros_like(labels))
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=safe, logits=logits)  # (B, T)
    losses = tf.pow(-tf.math.expm1(-entropy), gamma) * entropy  # 1 - p = 1 - exp(-entropy)
    losses = tf.where(known, losses, tf.zeros_like(losses))
    if row_weights is not None:
        losses *= task_columns(row_weights)  # (B, T)
    return tf.reduce_sum(tf.reduce_mean(losses, axis=0) * task_weights)


class SideProductConfig(LayerConfig):
    """Options of `side_product`.

    Attributes:
        dim: Width of a stored representation that stands for the fields of its side.
    """

    type: Literal["side_product"] = "side_product"
    dim: int = Field(default=8, ge=1)


@INTERACTIONS.register("side_product")
class SideProduct(InteractionLayer):
    """z = [s_w * (sum_{f in user} v_f) * (sum_{g in item} v_g)] for the fields of each width w.

    z joins the stream. Only fields of both sides meet: in a factorisation machine all pairs do.
    """

    Config = SideProductConfig
    joins = True
    explicit = True

    def __init__(self, name: str) -> None:
        super().__init__(name=name)
        self.scales: dict[str, tf.Variable] = {}

    @classmethod
    def create(cls, config: SideProductConfig, *, seed: int, name: str) -> Self:
        """See `InteractionLayer`."""
        return cls(name)

    @classmethod
    def activation_names(cls, config: SideProductConfig, name: str) -> list[str]:
        """z, named as the layer."""
        return [name]

    @classmethod
    def field_dim(cls, config: SideProductConfig) -> int:
        """See `InteractionLayer`."""
        return config.dim

    def interact(
        self, stream: tf.Tensor, inputs: BlockInputs, *, training: bool = False
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Multiplies the sides; the stream is not read."""
        products: list[tf.Tensor] = []
        for group in inputs.fields:
            if {"user", "item"} <= set(group.owners):
                user, item = (tf.reduce_sum(group.of(o), axis=1) for o in ("user", "item"))
                products.append(self._scale(group.width) * user * item)  # (B, K D)
        crossed = tf.concat(products or [tf.zeros_like(stream[:, :1])], axis=-1)  # (B, sum K D)
        return {self.name: crossed}, crossed

    def _scale(self, width: int) -> tf.Variable:
        key = str(width)
        if key not in self.scales:
            self.scales[key] = self.add_weight(
                name=f"scale_{width}", shape=(width,), initializer="ones"
            )
        return self.scales[key]


class MatcherConfig(StrictModel):
    """Options of `matcher`, below `upstream.matcher`.

    Attributes:
        weight: Of the loss `match`.
        head_rate: Factor of the learning rate of the heads' own optimizer.
    """

    weight: float = Field(default=0.1, ge=0)
    head_rate: float = Field(default=1.0, gt=0)


@UPSTREAMS.register("matcher")
class Matcher(UpstreamModel):
    """An interaction block below all heads, and towers that also learn to match by themselves.

        L = tasks + match,   match = weight * mean_b BCE(sigmoid(<P UR, Q IR>), y_b1)

    `match` moves tables, towers and the projections P and Q only; `tasks` moves everything. The
    heads have an optimizer of their own.
    """

    Config = MatcherConfig
    reads: ClassVar[tuple[str, ...]] = ("network.block",)

    def __init__(
        self,
        layout: FeatureLayout,
        network: NetworkConfig,
        embeddings: EmbeddingsConfig,
        options: MatcherConfig,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(name="matcher")
        self.layout = layout
        self.options = options
        self.task_loss = plain_loss(layout.tasks)
        self.backbone = Backbone(layout, network, embeddings, seed=seed)
        self.heads = build_heads(network, len(layout.scenarios), len(layout.tasks), seed=seed)
        self.match_user, self.match_item = (
            tf_keras.layers.Dense(
                8, use_bias=False, kernel_initializer=glorot(seed, name), name=name
            )
            for name in ("match_user", "match_item")
        )

    @classmethod
    def activation_names(cls, config: UpstreamConfig, tasks: Sequence[str]) -> list[str]:
        """The block's activations."""
        return layer_names(config.network.block, tasks)

    @classmethod
    def levels(cls, config: UpstreamConfig, tasks: Sequence[str]) -> dict[str, str]:
        """Every activation of the block."""
        names = layer_names(config.network.block)
        return {level: level for level in ("embeddings", *names, "output")}

    @classmethod
    def block_config(cls, config: UpstreamConfig) -> BlockConfig:
        """See `UpstreamModel`."""
        return config.network.block

    @property
    def block(self) -> InteractionBlock:
        """See `UpstreamModel`."""
        return self.backbone.block

    @property
    def layer_names(self) -> list[str]:
        """See `UpstreamModel`."""
        return self.block.layer_names

    def call(self, batch: EncodedBatch, training: bool = False) -> tf.Tensor:
        """Logits (B, T)."""
        return self._logits_and_match(batch, training)[0]

    def represent(self, batch: EncodedBatch) -> dict[str, tf.Tensor]:
        """See `UpstreamModel`."""
        towers = self.backbone.towers(batch)
        return {"UR": towers.user, "IR": towers.item, **self.backbone.interact(towers)[0]}

    def loss_terms(self, batch: EncodedBatch, training: bool = True) -> Mapping[str, tf.Tensor]:
        """`tasks` and `match`."""
        logits, match = self._logits_and_match(batch, training)
        first = tf.one_hot([0], len(self.layout.tasks))[0]  # (T,): the first task alone
        of_match = LOSSES["bce"](
            batch["labels"],
            tf.repeat(match, len(self.layout.tasks), axis=1),  # (B, T)
            first,
            batch.get("weights"),
        )
        return {"tasks": self.task_loss(batch, logits), "match": self.options.weight * of_match}

    def optimizers(self, config: OptimizerConfig) -> Sequence[OptimizerPart]:
        """The heads by `tasks` alone, at a rate of their own; everything else by both."""
        rate = config.dense_learning_rate * self.options.head_rate
        slower = config.model_copy(update={"dense_learning_rate": rate})
        return (
            OptimizerPart(config),
            OptimizerPart(slower, "heads", within("heads"), ("tasks",)),
        )

    def _logits_and_match(self, batch: EncodedBatch, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Logits (B, T) and <P UR, Q IR> (B, 1)."""
        towers = self.backbone.towers(batch, training=training)
        _, stream = self.backbone.interact(towers, training=training)
        match = self.match_user(towers.user) * self.match_item(towers.item)  # (B, 8)
        logits = self.heads(stream, batch["scenario"], training=training)
        return logits, tf.reduce_sum(match, axis=1, keepdims=True)


class ScaledConfig(StrictModel):
    """Options of `scaled`, below `downstream.adapter_options.scaled`.

    Attributes:
        initial: First value of a.
    """

    initial: float = 1.0


@ADAPTERS.register("scaled")
class ScaledAdapter(Adapter):
    """x_0 = [E; a_r * r; p_r] for each source r with its presence flag p_r, a_r one number."""

    Config = ScaledConfig
    widens = True

    def __init__(self, sources: Sequence[str], *, initial: float) -> None:
        super().__init__(sources, name="scaled")
        self.factors = [
            self.add_weight(
                name=f"factor_{k}",
                shape=(),
                initializer=tf_keras.initializers.Constant(initial),
            )
            for k in range(len(self.sources))
        ]

    @classmethod
    def create(cls, sources: Sequence[str], config: AdapterConfig, options: Any, seed: int) -> Self:
        """See `Adapter.create`."""
        return cls(sources, initial=options.initial)

    def call(
        self, representations: Mapping[str, tf.Tensor], width: int, training: bool = False
    ) -> Adapted:
        """See `Adapter.call`."""
        extra = []
        for factor, source in zip(self.factors, self.sources, strict=True):
            stored = representations[source]  # (B, d + 1)
            extra.append(tf.concat([factor * stored[:, :-1], stored[:, -1:]], axis=-1))
        return Adapted(extra=extra)
