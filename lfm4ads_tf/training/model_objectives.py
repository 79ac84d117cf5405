"""Objectives of the upstream, the downstream models and the retrieval models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf
import tf_keras

from lfm4ads_tf.batch import EncodedBatch
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.losses.task_loss import TaskLoss
from lfm4ads_tf.models.upstream import Upstream
from lfm4ads_tf.training.config import TrainingConfig
from lfm4ads_tf.training.objective import Objective
from lfm4ads_tf.transfer.downstream import DownstreamModel


def upstream_objective(
    model: Upstream, training: TrainingConfig, tasks: Sequence[str]
) -> Objective:
    """`tasks`: the configured loss over all tasks.

    Args:
        model: The upstream.
        training: Loss, weights of the tasks, optimizer.
        tasks: Names of the tasks.
    """
    task_loss = TaskLoss.of(training, tasks)

    def losses(batch: EncodedBatch) -> dict[str, tf.Tensor]:
        return {"tasks": task_loss(batch, model(batch, training=True))}

    return Objective.of(losses, training.optimizer)


def downstream_objective(
    model: DownstreamModel, training: TrainingConfig, tasks: Sequence[str], adapter_l2: float
) -> Objective:
    """`tasks`, and with adapters and an `adapter_l2` their L2.

        adapter_l2 = l2 / 2 sum |W|^2    over the kernels W of the adapters

    Args:
        model: The downstream model.
        training: Loss, weights of the tasks, optimizer.
        tasks: Names of the tasks.
        adapter_l2: l2, 0 or more.
    """
    task_loss = TaskLoss.of(training, tasks)

    def losses(batch: EncodedBatch) -> dict[str, tf.Tensor]:
        terms = {"tasks": task_loss(batch, model(batch, training=True))}
        if adapter_l2 and model.adapters:
            terms["adapter_l2"] = adapter_l2 * model.adapter_penalty()
        return terms

    return Objective.of(losses, training.optimizer)


def retrieval_objective(model: tf_keras.Model, training: TrainingConfig) -> Objective:
    """`retrieval`: the loss of a retrieval model, which `retrieval.loss` names.

    Args:
        model: A model with `loss(batch)`.
        training: Its optimizer.

    Raises:
        UserError: The training names a loss over the tasks, which a retrieval model has not.
    """
    default = TrainingConfig()
    if (training.loss, training.loss_options) != (default.loss, default.loss_options):
        raise UserError(
            "A retrieval model's training reads neither loss nor loss_options.",
            received=f"loss: {training.loss}, loss_options: {training.loss_options}",
            fix="set retrieval.loss instead",
        )

    def losses(batch: EncodedBatch) -> Mapping[str, tf.Tensor]:
        return {"retrieval": model.loss(batch)}

    return Objective.of(losses, training.optimizer)
