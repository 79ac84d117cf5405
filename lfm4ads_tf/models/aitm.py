"""Adaptive information transfer between tasks in a sequence, as an upstream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import tensorflow as tf
from pydantic import Field

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.interactions.expert_bank import ExpertBank
from lfm4ads_tf.interactions.information_transfer import InformationTransfer
from lfm4ads_tf.losses.row_weights import task_columns
from lfm4ads_tf.models.config import NetworkConfig, Units
from lfm4ads_tf.models.mixture_model import MixtureModel
from lfm4ads_tf.strict import StrictModel


class AITMConfig(StrictModel):
    """Experts, the tasks' sequence, and the bound between them.

    Attributes:
        sequence: All tasks, each behind the one that it depends on; empty means the spec's order.
        expert_units: Width of each layer of a task's expert; the last is that of the vectors.
        task_units: Hidden units of each task's tower; empty means logits of the vector itself.
        calibrator: Weight lambda of the term that holds a task's probability below the one before.
    """

    sequence: list[str] = []
    expert_units: Annotated[Units, Field(min_length=1)] = [256, 128]
    task_units: Units = [64]
    calibrator: float = Field(default=0.0, ge=0)


class AITM(MixtureModel):
    """z_t = TaskTower_t(v_t), v of `InformationTransfer` over q_t = E_t(x), task after task.

        L = L_tasks + lambda sum_t mean w_t max(p_t - p_(t-1), 0)

    See `MixtureModel`. The second term is there where lambda is above 0; w_t is the rows' weight in
    task t, 1 where they have none.

    Args:
        layout: Columns of the encoded batch.
        network: User and item tower, and whether there is a shared logit; its block is not read.
        embeddings: Tables.
        transfer: Sequence, experts, task towers and lambda.
        seed: Seed of all initial weights.

    Raises:
        UserError: There are fewer than two tasks, or the sequence is not one of all tasks.

    Source: Xi et al., Modeling the Sequential Dependence among Audience Multi-step Conversions with
    Multi-task Learning in Targeted Display Advertising (KDD 2021).
    """

    Config = AITMConfig
    least_tasks = 2

    def __init__(
        self,
        layout: FeatureLayout,
        network: NetworkConfig = NetworkConfig(),  # noqa: B008 - frozen
        embeddings: EmbeddingsConfig = EmbeddingsConfig(),  # noqa: B008 - frozen
        transfer: AITMConfig = AITMConfig(),  # noqa: B008 - frozen
        *,
        seed: int = 0,
    ) -> None:
        experts = ExpertBank([0] * len(layout.tasks), transfer.expert_units, seed=seed)
        super().__init__(
            layout,
            network,
            embeddings,
            transfer,
            experts,
            transfer.task_units,
            seed=seed,
            name="aitm",
        )
        self.transfer = InformationTransfer(seed=seed)
        self.calibrator = transfer.calibrator
        # columns of the spec's tasks in the sequence's order, beside Keras' attribute tracking
        order = [layout.tasks.index(task) for task in transfer.sequence or layout.tasks]
        self.__dict__["_order"] = tuple(order)

    @classmethod
    def refuse(cls, options: Any, embeddings: EmbeddingsConfig, tasks: Sequence[str]) -> None:
        """See `MixtureModel`; the sequence holds every task once."""
        super().refuse(options, embeddings, tasks)
        sequence = options.sequence
        unknown = [task for task in sequence if task not in tasks]
        if unknown:
            raise UserError(
                f"upstream.aitm.sequence names the unknown task '{unknown[0]}'."
                + nearest(unknown[0], tasks),
                received=f"sequence: {', '.join(sequence)}",
                fix=f"name each of {', '.join(tasks)} once",
            )
        if sequence and sorted(sequence) != sorted(tasks):
            raise UserError(
                "upstream.aitm.sequence is not one of all tasks.",
                received=f"sequence: {', '.join(sequence)}; tasks: {', '.join(tasks)}",
                fix="name each task once, or leave it out for the spec's order",
            )

    def mixtures(self, stream: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The vectors v of the tasks, (B, T, h), in the spec's order."""
        own = self.experts(stream, training=training)  # (B, T, h), in the spec's order
        order = self.__dict__["_order"]
        in_order = own if self._as_it_is(order) else tf.gather(own, order, axis=1)
        handed = self.transfer(in_order)
        if self._as_it_is(order):
            return handed
        return tf.gather(handed, [order.index(t) for t in range(len(order))], axis=1)

    def loss_terms(self, batch: EncodedBatch, training: bool = True) -> Mapping[str, tf.Tensor]:
        """`tasks`, and `calibrator` where its weight is above 0."""
        logits = self(batch, training=training)
        terms = {"tasks": self._task_loss(batch, logits)}
        if self.calibrator:
            of_tasks = tf.gather(tf.sigmoid(logits), self.__dict__["_order"], axis=1)  # (B, T)
            above = tf.nn.relu(of_tasks[:, 1:] - of_tasks[:, :-1])  # (B, T - 1)
            if "weights" in batch:
                above *= self._weights_of_later(batch["weights"])
            terms["calibrator"] = self.calibrator * tf.reduce_sum(tf.reduce_mean(above, axis=0))
        return terms

    def _weights_of_later(self, weights: tf.Tensor) -> tf.Tensor:
        """Weights of the rows in the sequence's later tasks, (B, T - 1), or (B, 1) for all."""
        columns = task_columns(weights)
        if columns.shape[1] == 1:
            return columns
        return tf.gather(columns, self.__dict__["_order"][1:], axis=1)

    @staticmethod
    def _as_it_is(order: tuple[int, ...]) -> bool:
        return order == tuple(range(len(order)))
