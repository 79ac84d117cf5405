"""Who makes, saves and restores tables that are too large for one process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import tensorflow as tf


class TableWorkers(Protocol):
    """The processes of a cluster that handle tables stretch by stretch.

    A function that they run may run more than once for an argument, after a loss; it must leave the
    same behind each time.
    """

    def reach(self, variable: tf.Variable) -> bool:
        """Whether the workers can read and write a variable: it lies on a server."""

    def run(
        self, function: Callable[..., Any], arguments: Iterable[Sequence[Any]]
    ) -> Iterator[Sequence[Any]]:
        """Runs a function once for each of some arguments, on whichever workers are free.

        Args:
            function: A `tf.function` with an input signature; it returns a few small tensors.
            arguments: For each run, NumPy values of the signature's types; texts are arrays of
                bytes without axes.

        Yields:
            What the function returned, as NumPy values, in the order of the arguments.
        """

    def call(
        self, name: str, inputs: Sequence[tf.Tensor], dtypes: Sequence[tf.DType]
    ) -> Sequence[tf.Tensor]:
        """Calls a host function in the process that runs the graph; used inside `function`.

        Args:
            name: One of `lfm4ads_tf.embeddings.placement.segment_files.HOST_FUNCTIONS`.
            inputs: Its arguments.
            dtypes: Types of its results.
        """


# of the process, not of a thread: it joins one cluster, and its threads may save tables
_working: list[TableWorkers] = []


def table_workers() -> TableWorkers | None:
    """The workers of the tables; None on one machine, where the process does all of it."""
    return _working[-1] if _working else None


@contextmanager
def working(workers: TableWorkers) -> Iterator[None]:
    """Leaves tables that `workers` reach to them, inside the block."""
    _working.append(workers)
    try:
        yield
    finally:
        _working.pop()
