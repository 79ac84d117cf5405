"""Checks that an op of the graph makes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


def graph_assert(condition: tf.Tensor, data: Sequence[Any], summarize: int) -> Any:
    """`tf.debugging.Assert` as one op.

    In a graph, `tf.debugging.Assert` puts what it would print into a branch of its own, which takes
    most of the time of tracing a check and of preparing it for its first call. What is printed here
    costs nothing to compute.

    Args:
        condition: () bool.
        data: What is printed where it does not hold.
        summarize: How many values are printed of each tensor.

    Returns:
        An op to depend on, None outside graphs.

    Raises:
        tf.errors.InvalidArgumentError: The condition does not hold.
    """
    if tf.executing_eagerly():
        return tf.debugging.Assert(condition, data, summarize=summarize)
    held = [tf.convert_to_tensor(values) for values in data]
    return tf.raw_ops.Assert(condition=condition, data=held, summarize=summarize)
