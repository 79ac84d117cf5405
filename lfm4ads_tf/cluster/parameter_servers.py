"""Training whose variables lie on servers and whose steps are made by workers."""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from lfm4ads_tf.cluster.closure_tables import ClosureTables
from lfm4ads_tf.cluster.closures import closure_of_batch, closure_of_steps
from lfm4ads_tf.cluster.cluster_config import ClusterConfig
from lfm4ads_tf.cluster.cluster_lost import ClusterLost
from lfm4ads_tf.cluster.config import ClusterSettings
from lfm4ads_tf.cluster.exit_codes import TRY_AGAIN
from lfm4ads_tf.cluster.host_functions import user_error_in
from lfm4ads_tf.cluster.plain_messages import tell_plainly
from lfm4ads_tf.cluster.resolver import resolver_of
from lfm4ads_tf.cluster.shared_folder import require_shared
from lfm4ads_tf.cluster.standstill import end_at_standstill
from lfm4ads_tf.data.execution import Execution, Finished, Steps, executing, kept
from lfm4ads_tf.data.row_recipe import RowRecipe
from lfm4ads_tf.data.row_source import RowSource, source_of
from lfm4ads_tf.embeddings.placement.table_workers import working
from lfm4ads_tf.leave import leave

_LOG = logging.getLogger(__name__)
_WAITING = 3  # closures per worker that are scheduled and not finished: bounds what is held
_ANSWER_S = 5.0  # how long a task may take to answer when a step hangs
_LEAVE_S = 10.0  # in which a process leaves whose task is silent


class ParameterServers(Execution):
    """Variables lie on the servers; workers make steps and read their rows; the chief plans.

    TensorFlow's `ParameterServerStrategy` places the variables, its `ClusterCoordinator` hands
    closures to the workers and repeats those of a lost one. The chief keeps the order of the rows:
    a closure is given the numbers of its rows, `steps_per_call` batches of them.

    Args:
        config: The cluster; this process is its chief.
        settings: How its work is cut.

    Raises:
        ClusterLost: A task of the cluster does not answer.
    """

    def __init__(self, config: ClusterConfig, settings: ClusterSettings) -> None:
        self._settings = settings
        self._workers = len(config.worker)
        self._devices = {
            task: f"/job:{task.job}/replica:0/task:{task.index}/device:CPU:0"
            for task in config.tasks
            if task != config.first
        }
        self.shards = len(config.ps)
        """Parts of every table: one on each server."""
        tell_plainly()
        # however long they take to come up
        _LOG.info("waiting for %s", ", ".join(map(str, self._devices)))
        self._strategy = tf.distribute.ParameterServerStrategy(resolver_of(config, config.first))
        self._coordinator = tf.distribute.coordinator.ClusterCoordinator(self._strategy)
        self._waiter = ThreadPoolExecutor(1, "cluster-wait")
        end_at_standstill(settings.stall_s)  # not before: the others may come up much later

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Models that are made inside lie on the servers.

        Raises:
            ClusterLost: A server is lost.
            UserError: What a worker raised.
        """
        tables = ClosureTables(self.finished)
        with self._told(), executing(self), working(tables), self._strategy.scope():
            yield

    def require_shared(self, folder: Path) -> None:
        """Refuses a folder that a worker does not see.

        Raises:
            UserError: There is such a worker, or a process that does not fit the chief.
            ClusterLost: A worker does not answer.
        """
        with self._told():
            self.in_time(lambda: require_shared(folder, self._devices))

    def compiled(self, step: Callable[[Any], Any], data: tf.data.Dataset) -> Callable[..., Any]:
        """Several steps as a closure of row numbers, see `closure_of_steps`."""
        traced: Callable[..., Any] = closure_of_steps(step, data)
        return traced

    def steps(self, compiled: Callable[..., Any], data: tf.data.Dataset) -> Steps:
        """The steps of one pass over batches."""
        return _ClosureSteps(self, compiled, source_of(data))

    def wait(self) -> None:
        """Waits for all closures; after it every step is in the variables.

        Raises:
            ClusterLost: A server is lost, or no closure was finished in time.
            UserError: What a worker raised.
        """
        with self._told():
            self.in_time(self._coordinator.join)

    def map(
        self,
        function: Callable[..., Any],
        data: tf.data.Dataset,
        model: tf_keras.Model | None = None,
    ) -> Iterator[Any]:
        """A function's value on every batch, in order, each made by a worker."""
        compiled = kept(function, data, model, closure_of_batch)
        source = source_of(data)
        rows, size = source.order(0), source.batch_size
        recipe = tf.constant(RowRecipe.of(source).to_json())
        calls = (
            (recipe, *_rows_of(source, rows[start : start + size]))
            for start in range(source.start * size, len(rows), size)
        )
        yield from self.finished(compiled, calls)

    def finished(
        self, compiled: Callable[..., Any], calls: Iterator[tuple[tf.Tensor, ...]]
    ) -> Iterator[Any]:
        """Values of calls of a traced function, in order; some calls are scheduled ahead.

        Raises:
            ClusterLost: A server is lost, or no closure was finished in time.
            UserError: What a worker raised.
        """
        waiting: deque[Any] = deque()
        for arguments in calls:
            with self._told():
                waiting.append(self._coordinator.schedule(compiled, args=arguments))
            if len(waiting) >= _WAITING * self._workers:
                yield self._value(waiting.popleft())
        while waiting:
            yield self._value(waiting.popleft())

    def in_time(self, function: Callable[[], Any]) -> Any:
        """What a function returns that waits for closures.

        Raises:
            ClusterLost: It did not return in `cluster.stall_s`.
        """
        try:
            return self._waiter.submit(function).result(self._settings.stall_s)
        except Late:
            silent = self._silent()
            lost = ClusterLost(
                f"No work was finished for {self._settings.stall_s:g} s (cluster.stall_s).",
                f"no answer of {', '.join(silent)}" if silent else "all tasks answer",
            )
            _leave_soon(lost)
            raise lost from None

    def batches_of_call(self, count: int) -> int:
        """Batches of a closure where `count` are to be learned: few are shared by all workers."""
        return max(1, min(self._settings.steps_per_call, -(-count // self._workers)))

    def _value(self, remote: Any) -> Any:
        with self._told():
            try:
                return self.in_time(remote.get)
            except tf.errors.CancelledError:  # because of another closure, whose error `join` has
                self.in_time(self._coordinator.join)
                raise

    def _silent(self) -> list[str]:
        """The tasks that do not answer."""
        asking = ThreadPoolExecutor(len(self._devices), "cluster-ask")
        answers = {task: asking.submit(_ask, device) for task, device in self._devices.items()}
        silent = []
        for task, answer in answers.items():
            try:
                answer.result(_ANSWER_S)
            except (Late, tf.errors.OpError):
                silent.append(str(task))
        asking.shutdown(wait=False)
        return silent

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Tells what TensorFlow's errors mean."""
        try:
            yield
        except tf.errors.OpError as error:
            told = user_error_in(error)
            if told is not None:
                raise told from error
            if not isinstance(error, (tf.errors.UnavailableError, tf.errors.AbortedError)):
                raise
            silent = self._silent()
            lost = ", ".join(silent) or "a server"
            raise ClusterLost(f"The cluster lost {lost}.", error) from error


class _ClosureSteps(Steps):
    """Steps that workers make, some closures ahead of the one whose losses are waited for."""

    def __init__(
        self, servers: ParameterServers, compiled: Callable[..., Any], source: RowSource
    ) -> None:
        self._servers, self._compiled, self._source = servers, compiled, source
        self._recipe = tf.constant(RowRecipe.of(source).to_json())
        self._next = source.start

    def take(self, count: int) -> Iterator[Finished]:
        """Has the next `count` steps made; see `Steps.take`."""
        source, size = self._source, self._source.batch_size
        order = source.order(0)
        first = self._next
        self._next = min(first + count, -(-len(order) // size))
        length = self._servers.batches_of_call(self._next - first)
        starts = range(first, self._next, length)
        lengths = [min(length, self._next - start) for start in starts]
        calls = (
            (
                self._recipe,
                *_rows_of(source, order[start * size : (start + length) * size]),
                tf.constant(size, tf.int64),
            )
            for start, length in zip(starts, lengths, strict=True)
        )
        values = self._servers.finished(self._compiled, calls)
        for length, losses in zip(lengths, values, strict=True):
            yield Finished(length, losses)


def _rows_of(source: RowSource, rows: np.ndarray) -> tuple[tf.Tensor, tf.Tensor]:
    """Row numbers and row weights as a closure takes them."""
    weights = np.zeros(0, np.float32) if source.weights is None else source.weights[rows]
    return tf.constant(rows, tf.int64), tf.constant(weights, tf.float32)


def _leave_soon(lost: ClusterLost) -> None:
    """Ends the process where the error does not: TensorFlow may wait for a silent task again.

    It does for an op that it has not run before, and blocks that are left may run one.
    """

    def end() -> None:
        print(f"Cluster lost: {lost}", file=sys.stderr)
        leave(TRY_AGAIN)

    timer = threading.Timer(_LEAVE_S, end)
    timer.daemon = True
    timer.start()


def _ask(device: str) -> None:
    """Waits for the answer of a task.

    By an op without inputs: values are sent to a device with the interpreter's lock held, so that
    one that does not answer would keep all of Python.
    """
    with tf.device(device):
        tf.raw_ops.Timestamp().numpy()
