"""The large foundation model (upstream)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Self

import tensorflow as tf
import tf_keras

from lfm4ads_tf.batch import BRANCHES, EncodedBatch
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.interactions.block import (
    InteractionBlock,
    check_names,
    explicit_crosses,
    is_per_task,
    settled_block,
    task_layers,
)
from lfm4ads_tf.interactions.block import layer_names as block_layers
from lfm4ads_tf.interactions.config import BlockConfig
from lfm4ads_tf.interactions.observed_tokens import ObservedTokens
from lfm4ads_tf.interactions.penalties import Penalties
from lfm4ads_tf.losses.task_loss import plain_loss
from lfm4ads_tf.models.backbone import Backbone, check_towers
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.heads import build_heads
from lfm4ads_tf.models.spec_reads import block_reads
from lfm4ads_tf.models.task_names import check_name_parts
from lfm4ads_tf.models.two_towers import TowerOutputs
from lfm4ads_tf.models.upstream import UpstreamModel
from lfm4ads_tf.models.upstream_config import UpstreamConfig
from lfm4ads_tf.seeding import derive

_OWN = "ad"
"""The branch that a downstream takes over."""


class FoundationModel(UpstreamModel):
    """User tower, item tower, mix tower and heads, trained on the logs of all scenarios.

        UR = UserTower(user fields), IR = ItemTower(item fields)
        p_{s,t} = sigmoid(head_{s,t}(Block(UR, IR, context)))

    With branches, content and ads have a block and heads of their own over the same towers. A row
    passes through its own branch only, so it costs one block and trains one. The ad branch is
    `backbone.block` and `heads`: what a downstream takes over has the same place with and without
    branches.

    With `block.sets: each` every set of the embeddings has towers and a block of its own, see
    `InteractionBlock`; UR is then [u^0; ...; u^(K-1)], IR likewise.

    Args:
        layout: Columns of the encoded batch; its scenarios and tasks size the heads.
        network: Towers, block and heads.
        embeddings: Tables.
        branches: Whether there are two branches.
        seed: Seed of all initial weights.

    Raises:
        UserError: The layout has no user or no item feature, `embeddings` names an unknown table,
            or the Keras dtype policy is another one than float32.

    Source: LFM4Ads (arXiv 2508.14948), upstream; how its branches share towers is not public.

    Example:
        >>> import lfm4ads_tf as lfm
        >>> log = lfm.encode(lfm.load_spec("synthetic", {"dataset_options": {"rows": 2000}}))
        >>> network = lfm.NetworkConfig(user_tower=[8], item_tower=[6])
        >>> model = lfm.FoundationModel(log.layout, network, lfm.EmbeddingsConfig(dim=4), seed=1)
        >>> model.compile(lfm.HybridOptimizer())
        >>> history = model.fit(log.dataset("train", batch_size=256), verbose=0)
        >>> batch = next(iter(log.dataset("test", batch_size=32)))
        >>> model(batch).shape  # logits of every task
        TensorShape([32, 2])
        >>> model.represent(batch)["UR"].shape
        TensorShape([32, 8])
    """

    reads: ClassVar[tuple[str, ...]] = ("network.block", "branches")
    kind: ClassVar[str] = "foundation"

    def __init__(
        self,
        layout: FeatureLayout,
        network: NetworkConfig = NetworkConfig(),  # noqa: B008 - frozen
        embeddings: EmbeddingsConfig = EmbeddingsConfig(),  # noqa: B008 - frozen
        *,
        branches: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(name=self.kind)
        self.layout = layout
        self.task_loss = plain_loss(layout.tasks)
        self.branches = branches
        scenarios, tasks = len(layout.scenarios), len(layout.tasks)
        self.backbone = Backbone(layout, network, embeddings, seed=seed)
        self.heads = build_heads(network, scenarios, tasks, seed=seed)
        if branches:
            content_seed = derive(seed, "content")
            self.content_block = InteractionBlock(
                network.block,
                tasks=layout.tasks,
                sets=embeddings.sets,
                seed=content_seed,
                name="content_block",
            )
            self.content_heads = build_heads(
                network, scenarios, tasks, seed=content_seed, name="content_heads"
            )

    @classmethod
    def create(
        cls,
        layout: FeatureLayout,
        config: UpstreamConfig,
        embeddings: EmbeddingsConfig,
        *,
        seed: int,
    ) -> Self:
        """See `UpstreamModel`."""
        return cls(layout, config.network, embeddings, branches=config.branches, seed=seed)

    @classmethod
    def settled(cls, config: UpstreamConfig, spec: FeatureSpec) -> UpstreamConfig:
        """See `UpstreamModel`; what the features settle of the block's layers."""
        block = settled_block(config.network.block, block_reads(spec, config.embeddings.sets))
        network = config.network.model_copy(update={"block": block})
        return config.model_copy(update={"network": network})

    @classmethod
    def activation_names(cls, config: UpstreamConfig, tasks: Sequence[str]) -> list[str]:
        """The block's activations; with branches `towers` and `<branch>.<layer>`.

        Raises:
            UserError: A task's name cannot be part of a layer's name.
        """
        block = cls._network(config).block
        if is_per_task(block):
            check_name_parts(tasks)
        names = block_layers(block, tasks, config.embeddings.sets)
        return branch_layers(names) if config.branches else names

    @classmethod
    def levels(cls, config: UpstreamConfig, tasks: Sequence[str]) -> dict[str, str]:
        """Every activation of the block that is no task's mixture; of branches the ads' one.

        Of a block for each set the tables and the towers, of several sets the tables alone: a
        downstream's towers and block read all sets together.
        """
        block = cls._network(config).block
        if block.sets == "each":
            every = super().levels(config, tasks)
            return {"embeddings": every["embeddings"]} if config.embeddings.sets > 1 else every
        names = block_layers(block)
        layers = {name: _in_branch(name) if config.branches else name for name in names}
        return {"embeddings": "embeddings", **layers, "output": "output"}

    @classmethod
    def handed_over(
        cls, config: UpstreamConfig, tasks: Sequence[str], stored: Collection[str]
    ) -> list[str]:
        """The last explicit cross, else the tasks' own, else the last layer; of the ads' branch."""
        block = cls._network(config).block
        of_tasks = task_layers(block, tasks)

        def held(names: Iterable[str]) -> list[str]:
            placed = [_in_branch(name) if config.branches else name for name in names]
            return [name for name in placed if name in stored]

        last = held(block_layers(block, tasks, config.embeddings.sets))[-1:]
        return held(explicit_crosses(block))[-1:] or held(of_tasks) or last

    @classmethod
    def block_config(cls, config: UpstreamConfig) -> BlockConfig | None:
        """See `UpstreamModel`; blocks of several sets are none that a module is isomorphic to."""
        block = cls._network(config).block
        return block if block.sets == "joined" else None

    @classmethod
    def _network(cls, config: UpstreamConfig) -> NetworkConfig:
        """Towers, block and heads; here as configured."""
        return config.network

    @classmethod
    def check(cls, config: UpstreamConfig, *, ads: bool) -> None:
        """Branches need a spec that tells ads from content; layers need names of their own."""
        super().check(config, ads=ads)
        check_names(cls._network(config).block)
        check_towers(cls._network(config))
        if config.branches and not ads:
            raise UserError(
                "A content and an ad branch need to know which samples are ads.",
                received="upstream.branches: true, and a feature spec without `ads`",
                fix="declare `ads: {by: <column>, values: [...]}` in the feature spec",
            )

    @property
    def block(self) -> InteractionBlock | None:
        """The interaction block; with branches the ads' one, and None where each set has one."""
        block = self.backbone.block
        return block if block.config.sets == "joined" else None

    @property
    def layer_names(self) -> list[str]:
        """Names of the activations, in order; each can be a CR's layer."""
        names = self.backbone.block.layer_names
        return branch_layers(names) if self.branches else names

    def call(
        self, batch: EncodedBatch, training: bool = False, penalties: Penalties | None = None
    ) -> tf.Tensor:
        """Logits (B, T) of each row's scenario, from its own branch.

        Args:
            batch: The batch.
            training: Whether dropout and compiled kernels apply.
            penalties: Gets what the block's layers add to the loss, of a row in its own branch.
        """
        if not self.branches:
            towers = self.backbone.towers(batch, training=training)
            _, stream = self.backbone.interact(towers, training=training, penalties=penalties)
            return self.heads(stream, batch["scenario"], training=training)
        branch = tf.cast(batch["branch"], tf.int32)
        rows = tf.dynamic_partition(tf.range(tf.shape(branch)[0]), branch, len(BRANCHES))
        # Rows of one branch side by side: ids are moved instead of the wider embeddings, and the
        # parts of what the towers give are then consecutive.
        ordered = _gather(batch, tf.concat(rows, axis=0))
        towers = self.backbone.towers(ordered, training=training)
        sizes = [tf.size(branch_rows) for branch_rows in rows]
        scenarios = tf.split(ordered["scenario"], sizes)
        logits = []
        for branch_towers, scenario, (block, heads) in zip(
            _split(towers, sizes), scenarios, self._branches(), strict=True
        ):
            _, stream = self.backbone.interact(
                branch_towers, block=block, training=training, penalties=penalties
            )
            logits.append(heads(stream, scenario, training=training))  # (B_branch, T)
        return tf.dynamic_stitch(rows, logits)  # (B, T)

    def loss_terms(self, batch: EncodedBatch, training: bool = True) -> Mapping[str, tf.Tensor]:
        """See `TrainableModel`; `tasks`, and what the block's layers add, as `<layer>/<name>`."""
        return self._penalised_terms(batch, training, [self.backbone.block])

    def observed(self, batch: EncodedBatch) -> Mapping[str, tf.Tensor | ObservedTokens]:
        """What the block's layers are observed by, such as tokens; of the ads' branch.

        Args:
            batch: A batch.

        Returns:
            Name -> (B,) or tokens.
        """
        return self.backbone.observed(batch)

    def represent(self, batch: EncodedBatch) -> dict[str, tf.Tensor]:
        """All representations of a batch.

        Returns:
            `UR` (B, d_u), `IR` (B, d_i), and the sample-level CR of every layer by the layer's
            name (B, d_layer). With branches every row passes through both of them, and the
            layers are `towers` and `<branch>.<layer>`.
        """
        towers = self.backbone.towers(batch)
        representations = {"UR": towers.user, "IR": towers.item}
        if not self.branches:
            return representations | self.backbone.interact(towers)[0]
        for name, (block, _) in zip(BRANCHES, self._branches(), strict=True):
            activations, _ = self.backbone.interact(towers, block=block)
            representations["towers"] = activations.pop("towers")
            representations |= {f"{name}.{layer}": value for layer, value in activations.items()}
        return representations

    def _branches(self) -> Iterable[tuple[InteractionBlock, tf_keras.layers.Layer]]:
        """Block and heads of every branch."""
        return (
            (self.content_block, self.content_heads),
            (self.backbone.block, self.heads),
        )


def branch_layers(names: Sequence[str]) -> list[str]:
    """Names of the layers of all branches, from those of one block; x_0 is the same for all."""
    layers = [name for name in names if name != "towers"]
    return ["towers", *(f"{branch}.{name}" for branch in BRANCHES for name in layers)]


def _in_branch(name: str) -> str:
    """Name of a layer in the branch that a downstream takes over."""
    return name if name == "towers" else f"{_OWN}.{name}"


def _gather(batch: EncodedBatch, rows: tf.Tensor) -> EncodedBatch:
    """What the towers and the heads read of some rows."""
    bags = {
        name: (tf.gather(ids, rows), None if weights is None else tf.gather(weights, rows))
        for name, (ids, weights) in batch.get("bags", {}).items()
    }
    return {
        "ids": tf.gather(batch["ids"], rows),
        "bags": bags,
        "dense": tf.gather(batch["dense"], rows),
        "scenario": tf.gather(batch["scenario"], rows),
    }


def _split(towers: TowerOutputs, sizes: list[tf.Tensor]) -> list[TowerOutputs]:
    """The towers' outputs for consecutive parts of the rows."""

    def parts(value: tf.Tensor | None) -> list[tf.Tensor | None]:
        return [None] * len(sizes) if value is None else tf.split(value, sizes)

    fields = [parts(group.values) for group in towers.fields]
    sequences = {name: (parts(v), parts(mask)) for name, (v, mask) in towers.sequences.items()}
    numbers = {owner: parts(values) for owner, values in towers.numbers.items()}
    rest = [parts(v) for v in (towers.user, towers.item, towers.context, towers.stream)]
    return [
        TowerOutputs(
            user,
            item,
            context,
            [
                replace(g, values=group_values[k])
                for g, group_values in zip(towers.fields, fields, strict=True)
            ],
            stream,
            {name: (values[k], masks[k]) for name, (values, masks) in sequences.items()},
            {owner: values[k] for owner, values in numbers.items()},
        )
        for k, (user, item, context, stream) in enumerate(zip(*rest, strict=True))
    ]
