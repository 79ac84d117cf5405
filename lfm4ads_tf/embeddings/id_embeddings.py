"""The embeddings of some ids of a table, in blocks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from lfm4ads_tf.embeddings import table_shards
from lfm4ads_tf.embeddings.table import SLICE_ROWS, ShardedEmbedding

_BLOCK_BYTES = 1 << 23  # of float32


def id_embeddings(layer: ShardedEmbedding, table: str, chosen: np.ndarray) -> Iterator[np.ndarray]:
    """The embeddings of the chosen ids of a logical table, in the order of the ids.

    An id of a table with `hashing` gives the sum of its two rows, as it is looked up. Each block is
    read from the shards that hold its rows, so memory grows by a block whatever the table's size,
    and what is read does not depend on the number of shards.

    Args:
        layer: The layer.
        table: One of its logical tables.
        chosen: (rows + 1,) bool, which of its ids; the last one is the missing id.

    Returns:
        Blocks (m, K D) float32 of some megabytes; m may be any number above 0.

    Raises:
        ValueError: `chosen` has another length.
    """
    config, fused = layer.layout.table(table), layer.layout.home(table)
    if chosen.shape != (config.rows + 1,):
        raise ValueError(
            f"Table '{table}' has {config.rows} ids and the missing one, not {chosen.shape}."
        )
    parts, offset = layer.parts(fused.name), fused.offsets[table]

    def read(rows: np.ndarray) -> np.ndarray:
        physical = fused.spread.forward(rows + offset)
        values: np.ndarray = table_shards.read_shards(parts, tf.constant(physical)).numpy()
        return values

    size = max(1, min(SLICE_ROWS, _BLOCK_BYTES // (4 * layer.sets * config.dim)))
    for start in range(0, config.rows, size):
        ids = start + np.flatnonzero(chosen[start : min(start + size, config.rows)])
        if not len(ids):
            continue
        if config.hashing is None:
            yield read(ids)
        else:
            first, second = (rows.numpy() for rows in config.hashing.rows(tf.constant(ids)))
            yield read(first) + read(second)
    if chosen[-1]:
        yield read(np.array([config.stored_rows]))
