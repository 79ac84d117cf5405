"""The small model of one scenario (downstream)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import tensorflow as tf

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.embeddings.table import ShardedEmbedding
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.interactions.block import check_joined, is_per_task, reads_towers
from lfm4ads_tf.interactions.columns import Label
from lfm4ads_tf.interactions.field_group import FieldGroup
from lfm4ads_tf.interactions.penalties import Penalties
from lfm4ads_tf.interactions.repeated import repeated
from lfm4ads_tf.losses.task_loss import TaskLoss, plain_loss
from lfm4ads_tf.models.backbone import Backbone
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.heads import build_heads
from lfm4ads_tf.models.task_model import TaskModel
from lfm4ads_tf.models.two_towers import TowerOutputs
from lfm4ads_tf.optim.hybrid_optimizer import HybridOptimizer
from lfm4ads_tf.training.config import OptimizerConfig
from lfm4ads_tf.transfer.adapters.adapter import Adapter
from lfm4ads_tf.transfer.isomorphic import IsomorphicModule

TowersOf = Callable[[tf.Tensor | None], TowerOutputs]
"""Gate of the field embeddings (B, `fields_width`), or None -> outputs of B rows."""


class DownstreamModel(TaskModel):
    """Own tables, the upstream's block class, and whatever transfer is plugged in.

        x_0 = [UR; IR; context] * gate(representations); adapted representations
        p_t = sigmoid(head_t([Block(x_0); module(stored UR, stored IR, context)]))

    Where no layer of the block reads x_0, what would be joined to it is a further field.

    Attributes:
        extra_width: Columns that adapters join to the stream, once the model was called.
        joined_width: Columns that the module joins to each input of the heads.

    Args:
        layout: Columns of the encoded batch; its tasks size the heads.
        network: Towers and block.
        embeddings: Tables.
        adapters: Feature-level transfer; none for the method `none`.
        module: Isomorphic module, or None.
        task_loss: The loss of the logits; the cross-entropy of all tasks alike when absent.
        adapter_l2: Adds adapter_l2 / 2 |W|^2 over the adapters' kernels W to the losses.
        seed: Seed of all initial weights.

    Raises:
        UserError: See `FoundationModel`; or the block is one of each set of embeddings.

    Source: LFM4Ads (arXiv 2508.14948), downstream.

    Example:
        >>> import lfm4ads_tf as lfm
        >>> import tensorflow as tf
        >>> from lfm4ads_tf.transfer.adapters.linear import LinearAdapter
        >>> log = lfm.encode(lfm.load_spec("synthetic", {"dataset_options": {"rows": 2000}}))
        >>> model = lfm.DownstreamModel(log.layout, adapters=[LinearAdapter(["UR"], dim=3)])
        >>> model.sources
        ['UR']
        >>> batch = next(iter(log.dataset("test", scenario="feed", batch_size=8)))
        >>> stored = tf.ones([8, 5])  # UR (B, 4), and the flag that each key has one
        >>> model({**batch, "representations": {"UR": stored}}).shape
        TensorShape([8, 2])
    """

    def __init__(
        self,
        layout: FeatureLayout,
        network: NetworkConfig = NetworkConfig(),  # noqa: B008 - frozen
        embeddings: EmbeddingsConfig = EmbeddingsConfig(),  # noqa: B008 - frozen
        *,
        adapters: Sequence[Adapter] = (),
        module: IsomorphicModule | None = None,
        task_loss: TaskLoss | None = None,
        adapter_l2: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(name="downstream")
        check_joined(network.block, "a downstream")
        self.layout = layout
        self.backbone = Backbone(layout, network, embeddings, seed=seed)
        self.adapters = list(adapters)
        self.module = module
        self.task_loss = task_loss or plain_loss(layout.tasks)
        self.adapter_l2 = adapter_l2
        self.heads = build_heads(network, 0, len(layout.tasks), seed=seed)
        # side by side, where the block leaves a part for each task
        self._mixtures = len(layout.tasks) if is_per_task(network.block) else 1
        self._reads_stream = reads_towers(network.block)
        self.extra_width = 0
        self.joined_width = 0

    @property
    def group_rates(self) -> dict[str, float]:
        """Factors of the learning rates of copied weights; empty where all learn alike."""
        return dict(self.origin.get("group_rates", {}))

    def compile(
        self, optimizer: HybridOptimizer | OptimizerConfig | None = None, **options: Any
    ) -> None:
        """See `TrainableModel`; copied weights learn at the rates of `group_rates`.

        Args:
            optimizer: Where it is no configuration, it must have the `group_rates` itself.
            **options: See `TrainableModel`.

        Raises:
            UserError: The optimizer lacks some of the `group_rates`.
        """
        rates = self.group_rates
        if isinstance(optimizer, HybridOptimizer):
            lacking = [name for name in rates if name not in optimizer.group_rates]
            if lacking:
                raise UserError(
                    "The optimizer lacks the learning rates of copied weights.",
                    received=f"group_rates without {', '.join(lacking)}",
                    fix="HybridOptimizer(..., group_rates=model.group_rates)",
                )
        elif rates:
            config = optimizer or OptimizerConfig()
            merged = {**rates, **config.group_rates}
            optimizer = config.model_copy(update={"group_rates": merged})
        super().compile(optimizer, **options)

    @property
    def sources(self) -> list[str]:
        """Stored representations that it reads, each once."""
        named = [s for adapter in self.adapters for s in adapter.sources]
        return list(dict.fromkeys([*named, *(self.module.sources if self.module else [])]))

    @property
    def all_embeddings(self) -> list[ShardedEmbedding]:
        """All layers that hold tables."""
        layers = [self.backbone.embeddings]
        if self.module is not None and self.module.embeddings is not None:
            layers.append(self.module.embeddings)
        return layers

    @property
    def representation_dims(self) -> dict[str, int]:
        """See `TrainableModel`."""
        return dict(self.__dict__.get("_dims", {}))

    def call(
        self, batch: EncodedBatch, training: bool = False, penalties: Penalties | None = None
    ) -> tf.Tensor:
        """Logits (B, T); arguments as in `logits`."""
        return self.logits(batch, training=training, penalties=penalties)

    def logits(
        self,
        batch: EncodedBatch,
        training: bool = False,
        *,
        towers: TowersOf | None = None,
        penalties: Penalties | None = None,
    ) -> tf.Tensor:
        """Logits (B, T), from the own towers or from others.

        Args:
            batch: The batch. Where `towers` is given, a stored representation may have one row, of
                static size 1, for all B rows.
            training: Whether dropout applies.
            towers: Gate of the field embeddings, or None -> the towers' outputs; the backbone's
                when absent.
            penalties: Gets what the layers of the block add to the loss, and behind `isomorphic/`
                those of the module.
        """
        _, stream = self.activations(batch, training=training, towers=towers, penalties=penalties)
        prior: tf.Tensor | None = None
        if self.module is not None:
            of_module = None if penalties is None else penalties.within(self.module.name)
            joined, prior = self.module(batch, training=training, penalties=of_module)
            stream = self._join(stream, joined)
        logits = self.heads(stream, batch["scenario"])
        return logits if prior is None else logits + prior

    def activations(
        self,
        batch: EncodedBatch,
        training: bool = False,
        *,
        towers: TowersOf | None = None,
        penalties: Penalties | None = None,
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """The own block's activations by name and its output (B, d); arguments as in `logits`."""
        stored = batch.get("representations", {})
        # beside Keras' attribute tracking: plain numbers
        self.__dict__["_dims"] = {name: int(stored[name].shape[-1]) - 1 for name in self.sources}
        field_gate: tf.Tensor | None = None
        for adapter in self.adapters:
            if adapter.of_fields:
                adapter_gate = adapter(
                    stored, width=self.backbone.fields_width, training=training
                ).gate
                field_gate = adapter_gate if field_gate is None else field_gate * adapter_gate
        if towers is None:
            outputs = self.backbone.towers(batch, training=training, gate=field_gate)
        else:
            outputs = towers(field_gate)
        rows = tf.shape(outputs.item)[0]
        parts = [outputs.user, outputs.item]
        width = sum(int(p.shape[-1]) for p in [*parts, outputs.context] if p is not None)
        extra: list[tf.Tensor] = []
        tokens: list[tf.Tensor] = []
        gate: tf.Tensor | None = None
        for adapter in self.adapters:
            if adapter.of_fields:
                continue
            adapted = adapter(stored, width=width, training=training)
            extra += [repeated(vector, rows) for vector in adapted.extra]
            # of one row as it is, as fields of a user are
            tokens += adapted.tokens or ([] if self._reads_stream else adapted.extra)
            if adapted.gate is not None:
                gate = adapted.gate if gate is None else gate * adapted.gate
        self.extra_width = sum(int(e.shape[-1]) for e in extra)
        return self.backbone.interact(
            _with_tokens(outputs, tokens),
            extra=tuple(extra),
            gate=gate,
            training=training,
            penalties=penalties,
        )

    def _join(self, stream: tf.Tensor, joined: tf.Tensor) -> tf.Tensor:
        """Joins what the module gives (B, j) to the block's output (B, d), or to each mixture."""
        self.joined_width = int(joined.shape[-1])
        parts = tf.split(stream, self._mixtures, axis=-1)  # (B, d / T) each
        return tf.concat([x for mixture in parts for x in (mixture, joined)], axis=-1)

    def joined_labels(self, labels: list[Label]) -> list[Label]:
        """Labels of what the heads read, from those of the block's output."""
        joined = [("joined", j) for j in range(self.joined_width)]
        size = len(labels) // self._mixtures
        starts = range(0, len(labels), size)
        return [label for s in starts for label in (*labels[s : s + size], *joined)]

    def loss_terms(self, batch: EncodedBatch, training: bool = True) -> dict[str, tf.Tensor]:
        """The terms that training minimises.

        `tasks`; what the layers of the block and of the module add, as `<layer>/<name>` and
        `isomorphic/<layer>/<name>`; and `adapter_l2` where it is asked for.

        Args:
            batch: The batch with its labels (B, T), and row weights where there are some.
            training: Whether dropout and compiled kernels apply.
        """
        of_module = [] if self.module is None else [self.module.block]
        terms = self._penalised_terms(batch, training, [self.backbone.block, *of_module])
        if self.adapter_l2 and self.adapters:
            terms["adapter_l2"] = self.adapter_l2 * self.adapter_penalty()
        return terms

    def adapter_penalty(self) -> tf.Tensor:
        """1/2 sum |W|^2 over the kernels of all adapters, ()."""
        kernels: list[Any] = [
            v for a in self.adapters for v in a.trainable_variables if len(v.shape) > 1
        ]
        return tf.add_n([tf.nn.l2_loss(k) for k in kernels]) if kernels else tf.constant(0.0)


def _with_tokens(towers: TowerOutputs, tokens: Sequence[tf.Tensor]) -> TowerOutputs:
    """The towers' outputs with further fields, one group each, since their widths may differ."""
    if not tokens:
        return towers
    adapted = [
        FieldGroup(token[:, tf.newaxis, :], [f"token_{k}"], ["representation"])  # (B, 1, w)
        for k, token in enumerate(tokens)
    ]
    return replace(towers, fields=[*towers.fields, *adapted])
