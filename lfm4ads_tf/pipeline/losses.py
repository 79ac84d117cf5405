"""Losses of the upstream and the downstream models, as functions of a batch."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from lfm4ads_tf.config import DownstreamConfig
from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.losses.masked_bce import masked_bce
from lfm4ads_tf.training.step import LossFunction
from lfm4ads_tf.transfer.downstream import DownstreamModel


def task_loss(model: Any, cache: EncodedCache, weights: dict[str, float]) -> Any:
    """Batch -> masked cross-entropy with the configured task weights."""
    unknown = [t for t in weights if t not in cache.layout.tasks]
    if unknown:
        raise UserError(
            f"task_weights names the unknown task '{unknown[0]}'.",
            fix=f"use one of {', '.join(cache.layout.tasks)}",
        )
    scale = tf.constant([weights.get(t, 1.0) for t in cache.layout.tasks], tf.float32)
    return lambda batch: masked_bce(batch["labels"], model(batch, training=True), scale)


def downstream_loss(
    model: DownstreamModel, cache: EncodedCache, config: DownstreamConfig
) -> LossFunction:
    """The tasks' loss and the adapters' L2."""
    tasks: LossFunction = task_loss(model, cache, config.training.task_weights)
    if not config.adapter_l2 or not model.adapters:
        return tasks
    return lambda batch: tasks(batch) + config.adapter_l2 * model.adapter_penalty()
