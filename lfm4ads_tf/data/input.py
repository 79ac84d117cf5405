"""tf.data input from the encoded cache."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from lfm4ads_tf.batch import FAILURES
from lfm4ads_tf.data.cache import EncodedCache, Refresh
from lfm4ads_tf.data.execution import current
from lfm4ads_tf.data.row_source import SOURCE, RepresentationJoin, RowSource
from lfm4ads_tf.errors import UserError

__all__ = ["PassNumber", "RepresentationJoin", "apply", "batches", "passes"]


def _alive(held: weakref.ref[RowSource]) -> RowSource:
    """The source of a data set.

    Raises:
        RuntimeError: The data set is gone while one of its iterators still runs.
    """
    source = held()
    if source is None:
        raise RuntimeError("A data set must be kept while it is iterated.")
    return source


def batches(
    cache: EncodedCache,
    order: np.ndarray,
    batch_size: int,
    *,
    start: int = 0,
    refresh: Refresh = "frozen",
    representations: RepresentationJoin | None = None,
    window: int | None = None,
    ahead: bool = False,
    weights: np.ndarray | None = None,
) -> tf.data.Dataset:
    """Batches of rows in a given order.

    Iterate it with `read`, so that an unreadable file is reported as a `UserError`.

    Args:
        cache: The encoded cache.
        order: Rows in the order in which they are read, (M,).
        batch_size: Rows a batch; the last one may be smaller.
        start: First batch, so that a resumed run goes on where it stopped.
        refresh: State of the moving features on valid and test rows.
        representations: Lookup of stored representations, None without transfer.
        window: The order stays inside stretches of this many rows (`Phase.order`): the next
            stretch is then read while this one is used. None reads what each batch needs.
        ahead: Whether `order` holds places of rows ahead, see `EncodedCache.take_ahead`.
        weights: Factors of the losses of all N rows of the cache, (N,) or (N, T) float32; None
            weights none.

    Returns:
        A dataset of `EncodedBatch` dictionaries.
    """
    places = tf.data.Dataset.range(start, -(-len(order) // batch_size))
    places = places.map(lambda index: (tf.constant(0, tf.int64), index))
    source = RowSource(
        cache, lambda _: order, batch_size, start, refresh, representations, ahead, weights
    )
    announce = None if window is None else _Announcer(batch_size, start, window)
    return _batches(source, places, announce)


class PassNumber:
    """The number of the next pass over a data set; `fit` sets it, each iteration counts it on."""

    def __init__(self) -> None:
        self.next = 0

    def take(self) -> int:
        """The number; the next one is one higher."""
        number, self.next = self.next, self.next + 1
        return number


def passes(
    cache: EncodedCache,
    plan: Callable[[], Iterator[tuple[int, int]]],
    order: Callable[[int], np.ndarray],
    batch_size: int,
    *,
    count: int,
    refresh: Refresh = "frozen",
    representations: RepresentationJoin | None = None,
    weights: np.ndarray | None = None,
) -> tf.data.Dataset:
    """Batches of several passes over rows, each in an order of its own.

    Args:
        cache: The encoded cache.
        plan: Called once for each iteration over the data set -> the number of a pass and of a
            batch in it, batch by batch. It is kept for the life of the process.
        order: Number of a pass -> its rows in the order in which they are read, (M,).
        batch_size: Rows a batch; the last one of a pass may be smaller.
        count: Batches of an iteration.
        refresh, representations, weights: See `batches`.

    Returns:
        A dataset of `EncodedBatch` dictionaries.
    """
    number = tf.TensorSpec([], tf.int64)
    places = tf.data.Dataset.from_generator(plan, output_signature=(number, number))
    places = places.apply(tf.data.experimental.assert_cardinality(count))
    source = RowSource(
        cache,
        lru_cache(maxsize=1)(order),
        batch_size,
        refresh=refresh,
        representations=representations,
        weights=weights,
    )
    return _batches(source, places, None)


class _Announcer:
    """Asks for the rows of windows before they are read.

    Args:
        batch_size, start, window: See `batches`.
    """

    def __init__(self, batch_size: int, start: int, window: int) -> None:
        self._batch_size, self._start, self._window = batch_size, start, window
        self._announced = 0  # windows that were asked for

    def __call__(self, source: RowSource, index: int) -> None:
        """Asks for the windows that a batch reads and for the one behind them."""
        order = source.order(0)
        if index == self._start:
            self._announced = self._start * self._batch_size // self._window
        last = (index + 1) * self._batch_size // self._window + 1
        for k in range(self._announced, min(last + 1, -(-len(order) // self._window))):
            rows = order[k * self._window : (k + 1) * self._window]
            source.cache.read_ahead(slice(int(rows.min()), int(rows.max()) + 1))
            self._announced = k + 1


def _batches(
    source: RowSource, places: tf.data.Dataset, announce: _Announcer | None
) -> tf.data.Dataset:
    """Batches at (pass, batch) places."""
    # TensorFlow keeps every function given to numpy_function for the life of the process, so ours
    # must not hold the data: the data set does.
    held = weakref.ref(source)
    form = source.form
    failures: list[UserError] = []

    def load(number: np.ndarray, index: np.ndarray) -> list[np.ndarray]:
        own = _alive(held)
        start = int(index) * own.batch_size
        rows = own.order(int(number))[start : start + own.batch_size]
        try:
            if announce is not None:
                announce(own, int(index))
            return own.load(rows)
        except UserError as error:
            failures.append(error)
            raise

    def parse(number: tf.Tensor, index: tf.Tensor) -> dict[str, Any]:
        return form.batch(tf.numpy_function(load, [number, index], form.dtypes, stateful=False))

    dataset = places.map(parse, num_parallel_calls=1, deterministic=True).prefetch(8)
    vars(dataset)[FAILURES] = failures
    vars(dataset)[SOURCE] = source
    return dataset


def apply(
    function: Callable[..., Any], data: tf.data.Dataset, model: tf_keras.Model | None = None
) -> Iterator[Any]:
    """A function's value on every batch, in order, computed where the models lie.

    Args:
        function: Called with a batch; with `model`, with the model and a batch. It is traced once
            for batches of any size.
        data: Batches.
        model: Keeps the traced function, so that later calls with the same function and kind of
            batch do not trace it again: on small data tracing takes longer than running.
    """
    return current().map(function, data, model)
