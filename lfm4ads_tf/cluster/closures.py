"""What the workers of a cluster are given to do: graphs that read their own rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import tensorflow as tf

from lfm4ads_tf.cluster.host_functions import call
from lfm4ads_tf.cluster.row_loader import ROWS
from lfm4ads_tf.data.row_source import RowSource, source_of

_AHEAD = 2  # batches that are read while one is used
_NUMBER = tf.TensorSpec([], tf.int64)


def closure_of_steps(step: Callable[[Any], Any], data: tf.data.Dataset) -> Any:
    """Some consecutive steps as one graph.

    Args:
        step: Batch -> losses, see `lfm4ads_tf.optim.step`.
        data: Batches of the kind that it is for.

    Returns:
        A traced function of a recipe (), rows (M,) int64, their weights (M, ...) and the rows of a
        batch () int64 -> losses before the last step. Rows stay those of the call: where a closure
        is made again because its worker was lost, it reads the same ones.
    """
    read = _Reader(source_of(data))
    # A function of its own: its losses are known before the loop that makes the steps.
    single = tf.function(step, input_signature=[data.element_spec], autograph=False)
    losses = single.get_concrete_function().structured_outputs

    def steps(recipe: tf.Tensor, rows: tf.Tensor, weights: tf.Tensor, batch_size: tf.Tensor) -> Any:
        count = (tf.size(rows, tf.int64) + batch_size - 1) // batch_size

        def batch(k: tf.Tensor) -> Any:
            chosen = slice(k * batch_size, (k + 1) * batch_size)
            return read(recipe, rows[chosen], weights[chosen])

        batches = tf.data.Dataset.range(count).map(batch, num_parallel_calls=1, deterministic=True)
        # An iterator in a loop: `for batch in batches` would be one op, which makes an internal
        # error of a lost server.
        iterator = iter(batches.prefetch(_AHEAD))
        none = tf.nest.map_structure(lambda t: tf.zeros(t.shape, t.dtype), losses)
        _, last = tf.while_loop(
            lambda k, _: k < count,
            lambda k, _: (k + 1, single(next(iterator))),
            (tf.constant(0, tf.int64), none),
            parallel_iterations=1,
        )
        return last

    return tf.function(steps, input_signature=[*read.signature, _NUMBER], autograph=False)


def closure_of_batch(function: Callable[[Any], Any], data: tf.data.Dataset) -> Any:
    """A function's value on a batch as a graph.

    Args:
        function: Called with a batch.
        data: Batches of the kind that it is for.

    Returns:
        A traced function of a recipe, rows and their weights, as above.
    """
    read = _Reader(source_of(data))

    def value(recipe: tf.Tensor, rows: tf.Tensor, weights: tf.Tensor) -> Any:
        return function(read(recipe, rows, weights))

    return tf.function(value, input_signature=read.signature, autograph=False)


class _Reader:
    """Reads batches in a graph, in the process that runs it.

    Attributes:
        signature: Types of the arguments.
    """

    def __init__(self, source: RowSource) -> None:
        self._form = replace(source, weights=None).form
        weights = source.weights
        self._weighted = weights is not None
        shape = [None] if weights is None else [None, *weights.shape[1:]]
        self.signature = [
            tf.TensorSpec([], tf.string),
            tf.TensorSpec([None], tf.int64),
            tf.TensorSpec(shape, tf.float32),
        ]

    def __call__(self, recipe: tf.Tensor, rows: tf.Tensor, weights: tf.Tensor) -> Any:
        batch = self._form.batch(call(ROWS, [recipe, rows], self._form.dtypes))
        if self._weighted:
            batch["weights"] = weights
        return batch
