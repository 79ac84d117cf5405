"""Tables that are made, saved and restored by closures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from lfm4ads_tf.cluster.host_functions import call
from lfm4ads_tf.embeddings.placement.server import on_server

Finished = Callable[[Callable[..., Any], Iterator[tuple[tf.Tensor, ...]]], Iterator[Any]]
"""A traced function and its calls -> its values in order."""


class ClosureTables:
    """The workers of a cluster, as `TableWorkers` has them.

    Args:
        finished: Runs calls of a function on the workers.
    """

    def __init__(self, finished: Finished) -> None:
        self._finished = finished

    def reach(self, variable: tf.Variable) -> bool:
        """Whether a variable lies on a server."""
        return on_server(variable)

    def run(
        self, function: Callable[..., Any], arguments: Iterable[Sequence[Any]]
    ) -> Iterator[Sequence[Any]]:
        """Runs a function once for each of some arguments; see `TableWorkers.run`."""
        calls = (tuple(_tensor(value) for value in each) for each in arguments)
        for values in self._finished(function, calls):
            yield [value.numpy() for value in values]

    def call(
        self, name: str, inputs: Sequence[tf.Tensor], dtypes: Sequence[tf.DType]
    ) -> Sequence[tf.Tensor]:
        """Calls a host function in the process that runs the graph."""
        return call(name, inputs, dtypes, stateful=True)


def _tensor(value: Any) -> tf.Tensor:
    array = np.asarray(value)
    return tf.constant(value, tf.string if array.dtype.kind in "SO" else array.dtype)
