"""Workers of tables that are this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from lfm4ads_tf.embeddings.placement.segment_files import HOST_FUNCTIONS


class FakeWorkers:
    """Runs at once what workers would run, each stretch as often as a lost worker might.

    Args:
        times: How often each argument is run.

    Attributes:
        runs: How many arguments were run, each counted once.
    """

    def __init__(self, times: int = 1) -> None:
        self.runs = 0
        self._times = times

    def reach(self, variable: tf.Variable) -> bool:
        """Every variable is here."""
        return variable is not None

    def run(
        self, function: Callable[..., Any], arguments: Iterable[Sequence[Any]]
    ) -> Iterator[Sequence[Any]]:
        """See `TableWorkers`."""
        for values in arguments:
            self.runs += 1
            for _ in range(self._times):
                found = function(*(tf.constant(value) for value in values))
            yield [tensor.numpy() for tensor in found]

    def call(
        self, name: str, inputs: Sequence[tf.Tensor], dtypes: Sequence[tf.DType]
    ) -> Sequence[tf.Tensor]:
        """See `TableWorkers`."""
        found: Sequence[tf.Tensor] = tf.numpy_function(HOST_FUNCTIONS[name], inputs, dtypes)
        return found
