"""Training of copies of a model, one in each process, that make every step together."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from lfm4ads_tf._version import __version__
from lfm4ads_tf.batch import FAILURES, first_failure
from lfm4ads_tf.cluster.cluster_config import ClusterConfig
from lfm4ads_tf.cluster.cluster_lost import ClusterLost
from lfm4ads_tf.cluster.resolver import resolver_of
from lfm4ads_tf.cluster.task import Task
from lfm4ads_tf.data.execution import Execution, Finished, Steps, executing
from lfm4ads_tf.data.row_source import RowSource, source_of
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.optim.replicas import losses_scaled

_LABELS = "labels"
_WEIGHTS = "weights"


class Mirrored(Execution):
    """Every process holds all variables and reads its share of each batch.

    Of the rows of a batch, process k of n takes k, k + n, ...; the mean of the gradients over the
    processes is the gradient of the batch, so all copies stay alike, bit by bit. Where the rows do
    not divide, some processes are given one more, without labels and of weight 0, and losses are
    scaled to the true rows. The variables are plain ones of the process:
    `MultiWorkerMirroredStrategy` is there for its sums alone. The first process validates, saves
    and exports.

    Args:
        config: The cluster; it has workers alone.
        task: The place of this process in it.
    """

    def __init__(self, config: ClusterConfig, task: Task) -> None:
        options = tf.distribute.experimental.CommunicationOptions(
            implementation=tf.distribute.experimental.CommunicationImplementation.RING
        )
        self._strategy = tf.distribute.MultiWorkerMirroredStrategy(
            resolver_of(config, task), options
        )
        self._replicas = len(config.worker)
        self._index = task.index
        self.first = task == config.first
        self._sum = tf.function(self._summed, reduce_retracing=True, autograph=False)

    def agreed(self, decide: Callable[[], Any]) -> Any:
        """What the first process decides; see `Execution.agreed`.

        Raises:
            ClusterLost: A process is lost.
        """
        text = json.dumps(decide()).encode() if self.first else b""
        with self._told():
            length = int(self._sum(tf.constant(len(text), tf.int32)))
            own = np.frombuffer(text.ljust(length, b"\0"), np.uint8).astype(np.int32)
            words = self._sum(tf.constant(own)).numpy()
        return json.loads(words.astype(np.uint8).tobytes())

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Models that are made inside are copies that are trained together.

        Raises:
            ClusterLost: A process is lost.
        """
        with self._told(), executing(self):
            yield

    def require_shared(self, folder: Path) -> None:
        """Refuses a folder that a process does not see, in all of them.

        Raises:
            UserError: There is such a process, or one of another version.
            ClusterLost: A process is lost.
        """
        probe = folder.resolve() / f".seen-{uuid.uuid4().hex}"
        if self.first:
            probe.touch()
        try:
            place, version = self.agreed(lambda: [str(probe), __version__])
            own = folder.resolve() / Path(place).name  # each goes by the path that it was given
            blind = self._these(not own.exists())
            other = self._these(version != __version__)
        finally:
            if self.first:
                probe.unlink()
        if other:
            raise UserError(
                f"{', '.join(other)} run another version of lfm4ads_tf than worker:0.",
                received=f"worker:0 {version}",
                fix="install one version everywhere",
            )
        if blind:
            raise UserError(
                f"{', '.join(blind)} do not see the folder of worker:0.",
                received=str(Path(place).parent),
                fix="give every process an --out that is the same shared folder",
            )

    def _these(self, own: bool) -> list[str]:
        """The processes of which something is so."""
        votes = np.zeros(self._replicas, np.int32)
        votes[self._index] = own
        with self._told():
            found = np.flatnonzero(self._sum(tf.constant(votes)).numpy())
        return [f"worker:{index}" for index in found]

    def compiled(self, step: Callable[[Any], Any], data: tf.data.Dataset) -> Callable[..., Any]:
        """A step of this process' share of a batch, whose gradients are those of all."""

        def replica(batch: Any, scale: tf.Tensor) -> Any:
            with losses_scaled(scale):
                return step(batch)

        def together(batch: Any, scale: tf.Tensor) -> Any:
            return self._strategy.run(replica, args=(batch, scale))

        own = {_WEIGHTS: tf.TensorSpec([None], tf.float32), **data.element_spec}
        signature = [own, tf.TensorSpec([], tf.float32)]
        return tf.function(together, input_signature=signature, autograph=False)

    def steps(self, compiled: Callable[..., Any], data: tf.data.Dataset) -> Steps:
        """The steps of one pass over batches, of which this process reads its share."""
        return _SharedSteps(compiled, source_of(data), self._index, self._replicas)

    def wait(self) -> None:
        """Waits for all processes."""
        self.agreed(lambda: None)

    def _summed(self, value: tf.Tensor) -> tf.Tensor:
        def replica(value: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            own = tf.identity(value)  # an argument lies on no device, which sums ask for
            return context.all_reduce(tf.distribute.ReduceOp.SUM, own)

        return self._strategy.run(replica, args=(value,))

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:
            raise ClusterLost("A process of the cluster was lost.", error) from error


class _SharedSteps(Steps):
    """Steps on a share of each batch."""

    def __init__(
        self, compiled: Callable[..., Any], source: RowSource, index: int, replicas: int
    ) -> None:
        self._compiled = compiled
        self._data = shares(source, index, replicas)
        self._batches = iter(self._data)

    def take(self, count: int) -> Iterator[Finished]:
        """Makes the next `count` steps; see `Steps.take`."""
        for _ in range(count):
            with first_failure(self._data):
                item = next(self._batches, None)
            if item is None:
                return
            yield Finished(1, self._compiled(*item))


def shares(source: RowSource, index: int, replicas: int) -> tf.data.Dataset:
    """Shares of a source's batches, all of them weighted, each with the factor of its losses."""
    given, source = source.weights, replace(source, weights=None)
    order, size, form = source.order(0), source.batch_size, source.form
    labels = form.names.index(_LABELS)
    failures: list[UserError] = []

    def load(number: np.ndarray) -> list[np.ndarray]:
        rows = order[int(number) * size : (int(number) + 1) * size]
        share, own = -(-len(rows) // replicas), rows[index::replicas]
        filled = np.concatenate([own, rows[: share - len(own)]])
        try:
            arrays = source.load(filled)
        except UserError as error:
            failures.append(error)
            raise
        arrays[labels] = np.array(arrays[labels])
        arrays[labels][len(own) :] = np.nan
        # beside the labels, which a softmax over the rows does not ask for
        weights = np.ones(share, np.float32) if given is None else np.array(given[filled])
        weights[len(own) :] = 0.0
        return [*arrays, weights, np.array(share * replicas / len(rows), np.float32)]

    def parse(number: tf.Tensor) -> Any:
        types = [*form.dtypes, tf.float32, tf.float32]
        *values, weights, scale = tf.numpy_function(load, [number], types, stateful=False)
        weights = tf.ensure_shape(weights, [None] if given is None else [None, *given.shape[1:]])
        return {**form.batch(values), _WEIGHTS: weights}, tf.ensure_shape(scale, [])

    numbers = tf.data.Dataset.range(source.start, -(-len(order) // size))
    data = numbers.map(parse, num_parallel_calls=1, deterministic=True).prefetch(8)
    vars(data)[FAILURES] = failures
    return data
