"""tf.data input from the encoded cache."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from lfm4ads_tf.batch import FAILURES, read
from lfm4ads_tf.data.cache import Bag, EncodedCache, Refresh
from lfm4ads_tf.errors import UserError

RepresentationJoin = Callable[[np.ndarray], Mapping[str, np.ndarray]]
"""Rows (B,) -> representation name -> (B, d + 1) float32, the last column flagging presence."""


@dataclass
class _Source:
    """What batches are read from.

    Attributes:
        order: Number of a pass -> its rows in the order in which they are read, (M,).
    """

    cache: EncodedCache
    order: Callable[[int], np.ndarray]
    representations: RepresentationJoin | None
    weights: np.ndarray | None


def _alive(held: weakref.ref[_Source]) -> _Source:
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
    source = _Source(cache, lambda _: order, representations, weights)
    announce = None if window is None else _Announcer(batch_size, start, window)
    return _batches(source, places, batch_size, refresh, ahead, announce)


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
    source = _Source(cache, lru_cache(maxsize=1)(order), representations, weights)
    return _batches(source, places, batch_size, refresh, False, None)


class _Announcer:
    """Asks for the rows of windows before they are read.

    Args:
        batch_size, start, window: See `batches`.
    """

    def __init__(self, batch_size: int, start: int, window: int) -> None:
        self._batch_size, self._start, self._window = batch_size, start, window
        self._announced = 0  # windows that were asked for

    def __call__(self, source: _Source, index: int) -> None:
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
    source: _Source,
    places: tf.data.Dataset,
    batch_size: int,
    refresh: Refresh,
    ahead: bool,
    announce: _Announcer | None,
) -> tf.data.Dataset:
    """Batches at (pass, batch) places."""
    # TensorFlow keeps every function given to numpy_function for the life of the process, so ours
    # must not hold the data: the data set does.
    held = weakref.ref(source)
    example = _flatten(_load(source, source.order(0)[:1], refresh, ahead))
    signature = [tf.as_dtype(value.dtype) for value in example.values()]
    names = list(example)
    failures: list[UserError] = []

    def load(number: np.ndarray, index: np.ndarray) -> list[np.ndarray]:
        own = _alive(held)
        rows = own.order(int(number))[int(index) * batch_size : (int(index) + 1) * batch_size]
        try:
            if announce is not None:
                announce(own, int(index))
            batch = _load(own, rows, refresh, ahead)
            return list(_flatten(batch).values())
        except UserError as error:
            failures.append(error)
            raise

    def parse(number: tf.Tensor, index: tf.Tensor) -> dict[str, Any]:
        values = tf.numpy_function(load, [number, index], signature, stateful=False)
        for value, name in zip(values, names, strict=True):
            value.set_shape([None, *example[name].shape[1:]])
        return _unflatten(dict(zip(names, values, strict=True)))

    dataset = places.map(parse, num_parallel_calls=1, deterministic=True).prefetch(8)
    vars(dataset)[FAILURES] = failures
    vars(dataset)["source"] = source
    return dataset


def apply(
    function: Callable[..., Any], data: tf.data.Dataset, model: tf_keras.Model | None = None
) -> Iterator[Any]:
    """A function's value on every batch, traced once for batches of any size.

    Args:
        function: Called with a batch; with `model`, with the model and a batch.
        data: Batches.
        model: Keeps the traced function, so that later calls with the same function and kind of
            batch do not trace it again: on small data tracing takes longer than running.
    """
    if model is None:
        compiled = _graph(function, data)
    else:
        # Beside Keras' attribute tracking: the functions are no part of a checkpoint.
        kept = vars(model).setdefault("_applied", {})
        key = (function, str(data.element_spec))
        if key not in kept:
            kept[key] = _graph(partial(function, model), data)
        compiled = kept[key]
    for batch in read(data):
        yield compiled(batch)


def _graph(function: Callable[..., Any], data: tf.data.Dataset) -> Any:
    """A traced function, without AutoGraph: no layer branches on a tensor, and it takes long."""
    return tf.function(function, input_signature=[data.element_spec], autograph=False)


def _load(source: _Source, rows: np.ndarray, refresh: Refresh, ahead: bool) -> dict[str, Any]:
    batch = source.cache.take_ahead(rows) if ahead else source.cache.take(rows, refresh)
    lookup = source.representations
    batch["representations"] = {} if lookup is None else lookup(rows)
    if source.weights is not None:
        batch["weights"] = source.weights[rows]
    return batch


def _flatten(batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Nested batch -> flat arrays; `_unflatten` is its counterpart inside the graph."""
    flat = {k: v for k, v in batch.items() if k not in ("bags", "representations")}
    bags: Mapping[str, Bag] = batch["bags"]
    for name, bag in bags.items():
        flat[f"bag/{name}/values"] = bag.values.astype(np.int64)
        flat[f"bag/{name}/splits"] = bag.splits.astype(np.int64)
        if bag.weights is not None:
            flat[f"bag/{name}/weights"] = bag.weights
    flat.update({f"representation/{n}": v for n, v in batch["representations"].items()})
    return flat


def _unflatten(flat: Mapping[str, tf.Tensor]) -> dict[str, Any]:
    batch: dict[str, Any] = {"bags": {}, "representations": {}}
    for key, value in flat.items():
        kind, _, rest = key.partition("/")
        if kind == "representation":
            batch["representations"][rest] = value
        elif kind != "bag":
            batch[key] = value
        elif key.endswith("/values"):
            name = rest.removesuffix("/values")
            splits = flat[f"bag/{name}/splits"]
            ids = tf.RaggedTensor.from_row_splits(value, splits, validate=False)
            weights = flat.get(f"bag/{name}/weights")
            batch["bags"][name] = (
                ids,
                None
                if weights is None
                else tf.RaggedTensor.from_row_splits(weights, splits, validate=False),
            )
    return batch
