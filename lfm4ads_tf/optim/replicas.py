"""Gradients of processes that train copies of a model, each on rows of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import tensorflow as tf

_SCALE: ContextVar[tf.Tensor | None] = ContextVar("scale of losses", default=None)


@contextmanager
def losses_scaled(scale: tf.Tensor) -> Iterator[None]:
    """Means over replicas that are taken inside are multiplied by a number.

    Args:
        scale: (), float32: rows that the replicas were given over true rows, where some were filled
            up so that all have alike many.
    """
    token = _SCALE.set(scale)
    try:
        yield
    finally:
        _SCALE.reset(token)


def mean_over_replicas(values: Sequence[Any]) -> list[Any]:
    """Means of losses or gradients over the replicas that train together.

    The values as they are where there is one alone.

    Args:
        values: Tensors or `tf.IndexedSlices`, alike in all replicas; of the latter the rows of all
            replicas are put together.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1 or not values:
        return list(values)
    means: list[Any] = context.all_reduce(tf.distribute.ReduceOp.MEAN, list(values))
    scale = _SCALE.get()
    return means if scale is None else [_scaled(value, scale) for value in means]


def _scaled(value: Any, scale: tf.Tensor) -> Any:
    if isinstance(value, tf.IndexedSlices):
        return tf.IndexedSlices(value.values * scale, value.indices, value.dense_shape)
    return value * tf.cast(scale, value.dtype)
