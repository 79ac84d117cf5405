"""Upstreams that give every task a vector of its own, made by experts."""

from __future__ import annotations

import abc
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf
import tf_keras

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.interactions.block import mixture_names
from lfm4ads_tf.interactions.tower_bank import TowerBank
from lfm4ads_tf.losses.task_loss import plain_loss
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.models.set_tower import side_by_side
from lfm4ads_tf.models.task_names import check_name_parts
from lfm4ads_tf.models.task_towers import TaskTowers
from lfm4ads_tf.models.two_towers import TwoTowers, beside
from lfm4ads_tf.models.upstream import UpstreamModel
from lfm4ads_tf.models.upstream_config import UpstreamConfig


class MixtureModel(UpstreamModel):
    """User tower, item tower, what makes a vector of each task of them, and a tower per task.

        x = [UR; IR; context],  m = Experts(x),  u_t = TaskTower_t(m_t)
        z_{s,t} = w_t u_t + b_t + w_{s,t} u_t + b_{s,t}

    The scenarios' own w_{s,t} and b_{s,t} are as in `ScenarioTaskHeads`. A subclass says what its
    experts are.

    Attributes:
        least_tasks: Fewest tasks that it is built for.
        one_mixture: Whether m_t is the same vector for all tasks.
        needs_positives: Whether training labels without a positive are refused.
        experts: Makes m (B, T, h), or (B, 1, h) for all tasks, of x.

    Args:
        layout: Columns of the encoded batch; its scenarios and tasks size the task towers.
        network: User and item tower, and whether there is a shared logit; its block is not read.
        embeddings: Tables.
        options: Options of the model.
        experts: See above.
        task_units: Hidden units of each task's tower; empty means logits of m_t itself.
        set_groups: Numbers of sets of the embeddings with towers of their own, see `TwoTowers`; x
            of several is (K, B, d) where each set is a group, else a list of (B, d_g).
        seed: Seed of all initial weights.
        name: Name of the model.

    Raises:
        UserError: It cannot be built for these tasks and tables.
    """

    least_tasks: ClassVar[int] = 1
    one_mixture: ClassVar[bool] = False
    needs_positives: ClassVar[bool] = True

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
        super().__init__(name=name)
        self.refuse(options, embeddings, layout.tasks)
        self.layout = layout
        self.task_loss = plain_loss(layout.tasks)
        self.backbone = TwoTowers(
            layout,
            network.user_tower,
            network.item_tower,
            embeddings,
            set_groups=set_groups,
            seed=seed,
            name="backbone",
        )
        self.experts = experts
        self.heads = self.made_heads(task_units, shared=network.shared_head, seed=seed)

    def made_heads(self, units: Sequence[int], *, shared: bool, seed: int) -> TowerBank:
        """The towers and logits over m; here a tower for each task.

        Args:
            units: Hidden units of a tower.
            shared: Whether a logit is shared by all scenarios.
            seed: Seed of the initial weights.
        """
        sizes = len(self.layout.scenarios), len(self.layout.tasks)
        return TaskTowers(units, *sizes, shared=shared, seed=seed, name="task_towers")

    @classmethod
    def activation_names(cls, config: UpstreamConfig, tasks: Sequence[str]) -> list[str]:
        """`towers`, and the mixture of each task.

        Raises:
            UserError: A task's name cannot be part of a layer's name.
        """
        check_name_parts(tasks)
        return ["towers", *mixture_names(tasks)]

    @classmethod
    def handed_over(
        cls, config: UpstreamConfig, tasks: Sequence[str], stored: Collection[str]
    ) -> list[str]:
        """The mixtures of all tasks, one where all are the same, else the towers."""
        mixtures = [name for name in mixture_names(tasks) if name in stored]
        mixtures = mixtures[:1] if cls.one_mixture else mixtures
        return mixtures or super().handed_over(config, tasks, stored)

    @classmethod
    def check_tasks(cls, config: UpstreamConfig, tasks: Sequence[str]) -> None:
        """See `UpstreamModel`, and `refuse`."""
        cls.refuse(config.options, config.embeddings, tasks)

    @classmethod
    def refuse(cls, options: Any, embeddings: EmbeddingsConfig, tasks: Sequence[str]) -> None:
        """Refuses tasks, tables and options that do not go together.

        Args:
            options: An instance of `Config`.
            embeddings: The tables.
            tasks: The tasks.

        Raises:
            UserError: They do not.
        """
        if len(tasks) < cls.least_tasks:
            raise UserError(
                f"{cls.__name__} needs {cls.least_tasks} tasks or more.",
                received=f"tasks: {', '.join(tasks)}",
                fix="declare another one under `tasks` in the feature spec, or take an upstream "
                "for one task, such as foundation",
            )

    @classmethod
    def check_labels(cls, config: UpstreamConfig, labels: Mapping[str, np.ndarray]) -> None:
        """Refuses a task without a positive in training, see `needs_positives`.

        Args:
            config: The configuration.
            labels: Task -> labels of the training rows (N,), NaN where unknown.

        Raises:
            UserError: There is one.
        """
        for task in labels if cls.needs_positives else ():
            if not (labels[task] == 1).any():
                raise UserError(
                    f"The task '{task}' has no positive in training, so {cls.__name__} cannot "
                    "learn it.",
                    received=f"{len(labels[task]):,} training rows, none with {task} = 1",
                    fix="take it out of `tasks`, or train on rows that have some",
                )

    @property
    def layer_names(self) -> list[str]:
        """Names of the activations, in order; each can be a CR's layer."""
        return ["towers", *mixture_names(self.layout.tasks)]

    def call(self, batch: EncodedBatch, training: bool = False) -> tf.Tensor:
        """Logits (B, T) of each row's scenario."""
        stream = self.backbone.stream(batch, training=training)
        return self.tower_logits(self.mixtures(stream, training), batch["scenario"], training)

    def mixtures(self, stream: tf.Tensor | list[tf.Tensor], training: bool = False) -> tf.Tensor:
        """The vector of every task, (B, T, h).

        Args:
            stream: x, (B, d), (K, B, d), or per group of sets (B, d_g).
            training: Whether compiled kernels may be used.
        """
        mixed = self.experts(stream, training=training)
        tasks = len(self.layout.tasks)
        return mixed if mixed.shape[1] == tasks else tf.tile(mixed, [1, tasks, 1])

    def tower_logits(
        self, mixed: tf.Tensor, scenario: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        """Logits (B, T) of the tasks' towers, from m (B, T, h)."""
        width = mixed.shape[1] * mixed.shape[2]
        return self.heads(tf.reshape(mixed, [-1, width]), scenario, training=training)

    def represent(self, batch: EncodedBatch) -> dict[str, tf.Tensor]:
        """All representations of a batch.

        Returns:
            `UR` (B, d_u), `IR` (B, d_i), and the sample-level CR of every layer by the layer's
            name: `towers` is x (B, d), of several sets (B, K d); `mix_<task>` is the task's vector
            m_t (B, h).
        """
        user, item, stream = self._read(batch)
        mixed = tf.unstack(self.mixtures(stream), axis=1)  # T of (B, h)
        activations = dict(zip(self.layer_names, [joined(stream), *mixed], strict=True))
        return {"UR": user, "IR": item, **activations}

    def _read(self, batch: EncodedBatch) -> tuple[tf.Tensor, tf.Tensor, Any]:
        """UR (B, d_u), IR (B, d_i), and x = [UR; IR; context] (B, d), or set by set, or a list."""
        sides = self.backbone.group_towers(batch)
        return joined(sides["user"]), joined(sides["item"]), beside([*sides.values()])


def joined(stream: Any) -> tf.Tensor:
    """(B, d) of (B, d), of sets (K, B, d), or of groups (B, d_g)."""
    if isinstance(stream, list):
        return tf.concat(stream, axis=-1)
    return side_by_side(stream) if len(stream.shape) == 3 else stream
