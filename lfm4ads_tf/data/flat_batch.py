"""An encoded batch as a flat list of arrays, which tf.data's functions pass on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from lfm4ads_tf.data.cache import Bag


def flatten(batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Nested batch -> flat arrays; `unflatten` is its counterpart inside the graph."""
    flat = {k: v for k, v in batch.items() if k not in ("bags", "representations")}
    bags: Mapping[str, Bag] = batch["bags"]
    for name, bag in bags.items():
        flat[f"bag/{name}/values"] = bag.values.astype(np.int64)
        flat[f"bag/{name}/splits"] = bag.splits.astype(np.int64)
        if bag.weights is not None:
            flat[f"bag/{name}/weights"] = bag.weights
    flat.update({f"representation/{n}": v for n, v in batch["representations"].items()})
    return flat


def unflatten(flat: Mapping[str, tf.Tensor]) -> dict[str, Any]:
    """Flat tensors -> `EncodedBatch`."""
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


class FlatForm:
    """Names, types and shapes of a flat batch, taken from an example.

    Args:
        example: What `flatten` gave for some rows of the same source.

    Attributes:
        names: Names of the arrays.
        dtypes: Types in the order of the names.
    """

    def __init__(self, example: Mapping[str, np.ndarray]) -> None:
        self._shapes = {name: [None, *value.shape[1:]] for name, value in example.items()}
        self.names = [*example]
        self.dtypes = [tf.as_dtype(value.dtype) for value in example.values()]

    def batch(self, values: Sequence[tf.Tensor]) -> dict[str, Any]:
        """The batch of flat tensors, (B, ...) each, in the order of the example's names."""
        for value, shape in zip(values, self._shapes.values(), strict=True):
            value.set_shape(shape)
        return unflatten(dict(zip(self._shapes, values, strict=True)))
