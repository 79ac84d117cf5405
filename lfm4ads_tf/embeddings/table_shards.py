"""How the rows of a table are spread and cut into shards."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from lfm4ads_tf.embeddings.placement.beside import beside
from lfm4ads_tf.embeddings.placement.server import on_server
from lfm4ads_tf.embeddings.quantize import QuantizedTable
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.kernels.memory import filled

GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
FLOAT16_OVERFLOW = 65520.0  # from here on the nearest value is infinity
MAX_ROWS = 2**31  # the product of two row numbers must fit in an int64


class RowSpread:
    """A bijection of [0, rows) that scatters neighbouring rows over the whole range.

    `physical = (multiplier * row + shift) mod rows` with `multiplier` coprime to `rows`. Ids that
    lie close together (a vocabulary sorted by frequency, the ids of one feature) thereby land in
    different contiguous shards. The multiplier lies near the golden section of `rows`, which
    keeps consecutive rows far apart for every number of shards.

    Args:
        rows: Size of the range, at least 1 and at most 2**31.
        seed: Chooses the multiplier and the shift. The same (rows, seed) give the same bijection
            in every process and version.

    Raises:
        UserError: `rows` is out of range.
    """

    def __init__(self, rows: int, seed: int = 0) -> None:
        if not 1 <= rows <= MAX_ROWS:
            raise UserError(
                "The number of physical rows of an embedding table is out of range.",
                received=rows,
                fix=f"Keep the rows of all tables of one width between 1 and {MAX_ROWS:,}.",
            )
        # a digest, not a generator: its stream may not change with a NumPy version, because
        # checkpoints hold rows in this order
        digest = hashlib.blake2b(f"{rows}/{seed}".encode(), digest_size=16).digest()
        jitter = int.from_bytes(digest[:8], "little") % (rows // 64 + 1)
        multiplier = min(int(rows * GOLDEN) + jitter, rows - 1) or 1
        while math.gcd(multiplier, rows) != 1:
            multiplier -= 1  # ends at 1 at the latest
        self.rows = rows
        self.seed = seed
        self.multiplier = multiplier
        self.shift = int.from_bytes(digest[8:], "little") % rows

    def forward(self, rows: np.ndarray) -> np.ndarray:
        """Physical rows of logical rows, both int64 of any one shape."""
        return (np.asarray(rows, np.int64) * self.multiplier + self.shift) % self.rows

    def forward_tensor(self, rows: tf.Tensor) -> tf.Tensor:
        """`forward` as TensorFlow ops, int64 to int64."""
        return tf.math.floormod(rows * self.multiplier + self.shift, self.rows)


def shard_bounds(rows: int, shards: int) -> list[tuple[int, int]]:
    """Contiguous half-open row ranges of the shards, the longer ones first.

    The split of `tf.distribute.experimental.partitioners.FixedShardsPartitioner` and of
    `tf.nn.embedding_lookup`: `rows mod shards` shards hold one row more than the others, and there
    are never more shards than rows.

    Args:
        rows: Rows of the table, at least 1.
        shards: Number of shards asked for, at least 1.

    Returns:
        `min(shards, rows)` pairs (start, stop).
    """
    shards = min(shards, rows)
    size, extra = divmod(rows, shards)
    starts = [size * i + min(i, extra) for i in range(shards + 1)]
    return list(zip(starts[:-1], starts[1:], strict=True))


def read_shards(parts: Sequence[tf.Variable], rows: tf.Tensor) -> tf.Tensor:
    """Reads rows of a table that is cut as `shard_bounds` says.

    From parameter servers a row is fetched once, however often it is asked for, and its gradient
    returns as one sum.

    Args:
        parts: The shards in order, each (rows of the shard, width), of any storage; a
            `QuantizedTable` is the only one.
        rows: Physical rows, (N,) int64 within [0, sum of the shards' rows).

    Returns:
        (N, width) float32. Its gradient is one float32 `tf.IndexedSlices` per shard.
    """
    if isinstance(parts[0], QuantizedTable):
        return parts[0].gather(rows)
    if not any(on_server(part) for part in parts):
        return _read(parts, rows)
    distinct, place = tf.unique(rows)  # (U,), (N,)
    return _repeated(_read(parts, distinct), place)


def _read(parts: Sequence[tf.Variable], rows: tf.Tensor) -> tf.Tensor:
    """Rows as often as they are asked for."""
    if len(parts) == 1:
        return _gather(parts[0], rows)
    bounds = shard_bounds(sum(p.shape[0] for p in parts), len(parts))
    starts = tf.constant([start for start, _ in bounds], tf.int64)
    shard = tf.searchsorted(starts, rows, side="right") - 1  # (N,) int32
    local = tf.dynamic_partition(rows - tf.gather(starts, shard), shard, len(parts))
    places = tf.dynamic_partition(tf.range(tf.size(rows)), shard, len(parts))
    values = [_gather(part, mine) for part, mine in zip(parts, local, strict=True)]
    stitched = tf.dynamic_stitch(places, values)
    return tf.ensure_shape(stitched, [None, parts[0].shape[1]])


@tf.custom_gradient
def _repeated(values: tf.Tensor, place: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """values[place]; the gradient is dense, as that of every read's rows."""

    def grad(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
        return tf.math.unsorted_segment_sum(upstream, place, tf.shape(values)[0]), None

    return tf.gather(values, place), grad


def _gather(part: tf.Variable, rows: tf.Tensor) -> tf.Tensor:
    """Rows of one shard in float32, with a float32 gradient whatever the storage."""
    if part.dtype == tf.float32:
        return tf.gather(part, rows)

    # A cast's own gradient would round the gradient to the storage, where small ones vanish. The
    # table goes in as its handle: given as a variable, it would be read as a whole.
    @tf.custom_gradient
    def narrow(handle: tf.Tensor, rows: tf.Tensor) -> tuple[tf.Tensor, Any]:
        def grad(upstream: tf.Tensor) -> tuple[tf.IndexedSlices, None]:
            shape = tf.constant(part.shape.as_list(), tf.int64)
            return tf.IndexedSlices(upstream, rows, shape), None

        taken = tf.raw_ops.ResourceGather(resource=handle, indices=rows, dtype=part.dtype)
        return tf.ensure_shape(tf.cast(taken, tf.float32), [None, part.shape[1]]), grad

    tf.gather(part, tf.zeros([0], tf.int64))  # shows the tape that the table is read
    return narrow(part.handle, rows)


def parts_of(variable: Any) -> list[tf.Variable]:
    """The shards of a `ShardedVariable`, or a plain variable as the only one.

    While a SavedModel is written, a `ShardedVariable` answers with one merged variable, so ask
    anew in every trace.
    """
    if isinstance(variable, tf.__internal__.distribute.ShardedVariable):
        return list(variable.variables)
    return [variable]


def partitioned_variable(
    name: str,
    rows: int,
    width: int,
    shards: int,
    fill: float,
    *,
    trainable: bool,
    storage: str = "float32",
    neighbours: Sequence[tf.Variable] | None = None,
) -> Any:
    """A table of (rows, width) cut as `shard_bounds` says.

    Under a strategy with parameter servers the shards are made on the servers.

    Args:
        name: Name of the variable; the shards append `/part_<i>`.
        rows: Rows over all shards.
        width: Floats per row.
        shards: Number of shards; one gives a plain `tf.Variable`.
        fill: The initial value of all elements.
        trainable: Whether gradients are wanted.
        storage: Type of the elements.
        neighbours: Shards of another table of as many rows; each new one lies beside its own.

    Returns:
        A `tf.Variable`, or a `ShardedVariable` that is one logical tensor in a checkpoint.
    """
    bounds = shard_bounds(rows, shards)
    parts = []
    for i, (start, stop) in enumerate(bounds):
        with nullcontext() if neighbours is None else beside(neighbours[i]):
            part = tf.Variable(
                partial(filled, stop - start, width, fill, storage),  # called where the part lies
                trainable=trainable,
                name=name if len(bounds) == 1 else f"{name}/part_{i}",
            )
        parts.append(part)
    if len(parts) == 1:
        return parts[0]
    return tf.__internal__.distribute.ShardedVariable(parts, name=name)


def scatter_rows(parts: Sequence[tf.Variable], rows: np.ndarray, values: np.ndarray) -> None:
    """Overwrites rows of a sharded table.

    Args:
        parts: The shards in order, or a `QuantizedTable` alone.
        rows: Distinct global rows, (N,) int64.
        values: Their new values, (N, width) float32; rounded to the table's storage.

    Raises:
        UserError: The storage cannot hold a value: a finite one is too large for float16, or one
            that is not finite is to be kept as int8. Nothing is written then.
    """
    if isinstance(parts[0], QuantizedTable):
        parts[0].write_rows(rows, values)
        return
    if parts[0].dtype == tf.float16:
        require_float16(values)
    bounds = shard_bounds(sum(part.shape[0] for part in parts), len(parts))
    for part, (start, stop) in zip(parts, bounds, strict=True):
        mine = (rows >= start) & (rows < stop)
        if mine.any():
            local = tf.constant(rows[mine] - start, tf.int64)
            new = tf.cast(tf.constant(values[mine], tf.float32), part.dtype)
            part.scatter_update(tf.IndexedSlices(new, local))


def require_float16(values: np.ndarray) -> None:
    """Refuses finite values that float16 would make infinite.

    Raises:
        UserError: There is one.
    """
    too_large = np.isfinite(values) & (np.abs(values) >= FLOAT16_OVERFLOW)
    if too_large.any():
        raise UserError(
            "A value is too large for a table that is kept as float16.",
            received=f"{values[too_large][0]:g}",
            fix=f"use another storage; float16 ends at {tf.float16.max:,.0f}",
        )
