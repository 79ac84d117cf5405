"""Where models lie and who computes their steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras

from lfm4ads_tf.batch import read


class Finished(NamedTuple):
    """Steps that were made.

    Attributes:
        steps: How many.
        losses: What the last of them returned.
    """

    steps: int
    losses: Any


class Steps:
    """The steps of one pass over batches, in order, made in this process.

    Args:
        step: What `Execution.compiled` gave.
        data: Batches.
    """

    def __init__(self, step: Callable[[Any], Any], data: tf.data.Dataset) -> None:
        self._step = step
        self._batches = read(data)

    def take(self, count: int) -> Iterator[Finished]:
        """Makes the next `count` steps; what it yields adds up to them."""
        for _ in range(count):
            batch = next(self._batches, None)
            if batch is None:
                return
            yield Finished(1, self._step(batch))


class Execution:
    """Models lie in this process, which computes their steps; clusters have forms of their own.

    What is traced or made inside `scope` belongs to it; `current` is the one in force.
    """

    shards: int | None = None
    """Parts of every table; None leaves it to the configuration."""

    first: bool = True
    """Whether this process decides and writes; of several that train alike, one does."""

    def agreed(self, decide: Callable[[], Any]) -> Any:
        """What the first process decides, the same in all of them; the others wait for it.

        Args:
            decide: Called in the first process alone; returns plain JSON values.
        """
        return decide()

    def scope(self) -> AbstractContextManager[Any]:
        """Models that are made inside are trained by this execution."""
        return nullcontext()

    def require_shared(self, folder: Path) -> None:
        """Refuses a folder that not all processes of the execution see; it exists.

        Raises:
            UserError: There is a process that does not.
        """

    def compiled(self, step: Callable[[Any], Any], data: tf.data.Dataset) -> Callable[..., Any]:
        """A step as `steps` takes it, traced once for batches of any size.

        Args:
            step: Batch -> losses before the step, as `step_of` gives it.
            data: Batches of the kind that it is for.
        """
        traced: Callable[..., Any] = graph_of_batches(step, data)
        return traced

    def steps(self, compiled: Callable[..., Any], data: tf.data.Dataset) -> Steps:
        """The steps of one pass over batches.

        Args:
            compiled: What `compiled` gave.
            data: Batches.
        """
        return Steps(compiled, data)

    def wait(self) -> None:
        """Returns when every step that was begun is made."""

    def map(
        self,
        function: Callable[..., Any],
        data: tf.data.Dataset,
        model: tf_keras.Model | None = None,
    ) -> Iterator[Any]:
        """A function's value on every batch, in order; see `lfm4ads_tf.data.input.apply`."""
        compiled = kept(function, data, model, graph_of_batches)
        for batch in read(data):
            yield compiled(batch)


def graph_of_batches(function: Callable[..., Any], data: tf.data.Dataset) -> Any:
    """A traced function, without AutoGraph: no layer branches on a tensor, and it takes long."""
    return tf.function(function, input_signature=[data.element_spec], autograph=False)


def kept(
    function: Callable[..., Any],
    data: tf.data.Dataset,
    model: tf_keras.Model | None,
    graph: Callable[[Callable[..., Any], tf.data.Dataset], Any],
) -> Any:
    """The traced function that a model keeps, made where it keeps none yet.

    Args:
        function: Called with a batch; with `model`, with the model and a batch.
        data: Batches of the kind that it is for.
        model: Who keeps it; None makes one for this call.
        graph: How it is traced.
    """
    if model is None:
        return graph(function, data)
    # Beside Keras' attribute tracking: the functions are no part of a checkpoint.
    functions = vars(model).setdefault("_applied", {})
    key = (function, str(data.element_spec), graph)
    if key not in functions:
        functions[key] = graph(partial(function, model), data)
    return functions[key]


_in_force: list[Execution] = [Execution()]  # of the process, not of a thread: so are the models


def current() -> Execution:
    """The execution in force: of this process, unless a block of `executing` says otherwise."""
    return _in_force[-1]


@contextmanager
def executing(execution: Execution) -> Iterator[None]:
    """What `current` gives inside, in all threads."""
    _in_force.append(execution)
    try:
        yield
    finally:
        _in_force.pop()
