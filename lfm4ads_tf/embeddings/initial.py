"""Initial values of embedding rows, each a function of (seed, table name, row) alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf

from lfm4ads_tf.seeding import derive

INIT_BLOCK = 4096  # rows drawn at once; part of the definition of the initial values
MISSING_BLOCK = -1  # the missing id's row is drawn apart, so that it does not depend on `rows`


def initial_blocks(
    name: str, rows: int, width: int, init: str, scale: float, seed: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Draws the rows of a table block by block.

    Args:
        name: Name of the table.
        rows: Rows of its ids; row `rows` is the missing id's.
        width: Floats per row.
        init: "normal" or "uniform".
        scale: Standard deviation, or bound.
        seed: Seed of the layer.

    Yields:
        (first row, values (N, width) float32).
    """
    draw = _draw_normal if init == "normal" else _draw_uniform
    shape = tf.constant([INIT_BLOCK, width])
    for block in [*range(-(-rows // INIT_BLOCK)), MISSING_BLOCK]:
        start = rows if block == MISSING_BLOCK else block * INIT_BLOCK
        count = 1 if block == MISSING_BLOCK else min(INIT_BLOCK, rows - start)
        values = draw(shape, tf.constant([seed, derive(block, name)], tf.int64))
        yield start, values[:count].numpy() * np.float32(scale)


def block_seeds(name: str, blocks: Iterable[int], seed: int) -> np.ndarray:
    """Seeds of some blocks of a table, for `drawn_blocks`: (number of blocks, 2) int64."""
    return np.array([[seed, derive(block, name)] for block in blocks], np.int64)


def drawn_blocks(seeds: tf.Tensor, width: int, init: str, scale: tf.Tensor) -> tf.Tensor:
    """What `initial_blocks` draws, bit for bit, as part of a graph.

    Args:
        seeds: (N, 2) int64, see `block_seeds`.
        width: Floats per row.
        init: "normal" or "uniform".
        scale: Standard deviation, or bound, () float32.

    Returns:
        (N * INIT_BLOCK, width) float32.
    """
    draw = _draw_normal if init == "normal" else _draw_uniform
    shape = tf.constant([INIT_BLOCK, width])
    blocks = tf.map_fn(lambda pair: draw(shape, pair), seeds, fn_output_signature=tf.float32)
    return tf.reshape(blocks, [-1, width]) * scale  # (N * INIT_BLOCK, width)


@tf.function
def _draw_normal(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    return tf.random.stateless_normal(shape, seed, alg="philox")


@tf.function
def _draw_uniform(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    return tf.random.stateless_uniform(shape, seed, -1.0, 1.0, alg="philox")
