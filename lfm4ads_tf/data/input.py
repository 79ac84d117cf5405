"""tf.data input from the encoded cache."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
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
    """What batches are read from."""

    cache: EncodedCache
    order: np.ndarray
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
    count = -(-len(order) // batch_size)
    # TensorFlow keeps every function given to numpy_function for the life of the process, so ours
    # must not hold the data: the data set does.
    source = _Source(cache, order, representations, weights)
    held = weakref.ref(source)
    example = _flatten(_load(source, order[:1], refresh, ahead))
    signature = [tf.as_dtype(value.dtype) for value in example.values()]
    names = list(example)

    failures: list[UserError] = []
    announced = 0  # windows that were asked for

    def announce(index: int, own: _Source) -> None:
        """Asks for the windows that this batch reads and for the one behind them."""
        nonlocal announced
        if window is None:
            return
        if index == start:
            announced = start * batch_size // window
        last = (index + 1) * batch_size // window + 1
        for k in range(announced, min(last + 1, -(-len(own.order) // window))):
            rows = own.order[k * window : (k + 1) * window]
            own.cache.read_ahead(slice(int(rows.min()), int(rows.max()) + 1))
            announced = k + 1

    def load(index: np.ndarray) -> list[np.ndarray]:
        own = _alive(held)
        rows = own.order[int(index) * batch_size : (int(index) + 1) * batch_size]
        try:
            announce(int(index), own)
            batch = _load(own, rows, refresh, ahead)
            return list(_flatten(batch).values())
        except UserError as error:
            failures.append(error)
            raise

    def parse(index: tf.Tensor) -> dict[str, Any]:
        values = tf.numpy_function(load, [index], signature, stateful=False)
        for value, name in zip(values, names, strict=True):
            value.set_shape([None, *example[name].shape[1:]])
        return _unflatten(dict(zip(names, values, strict=True)))

    dataset = tf.data.Dataset.range(start, count)
    dataset = dataset.map(parse, num_parallel_calls=1, deterministic=True).prefetch(8)
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
