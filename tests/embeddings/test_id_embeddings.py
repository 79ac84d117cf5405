"""Embeddings of chosen ids are what a look-up of these ids gives, block by block."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.embeddings import id_embeddings as room
from lfm4ads_tf.embeddings.hashing import Hashing
from lfm4ads_tf.embeddings.id_embeddings import id_embeddings
from lfm4ads_tf.embeddings.table import EmbeddedFeature, ShardedEmbedding, TableConfig

TABLES = [
    TableConfig("item", 37, 3, init_scale=1.0),
    TableConfig("user", 23, 3, init_scale=1.0),
    TableConfig("half", 9, 3, init_scale=1.0, storage="bfloat16"),
    TableConfig("wide", 50, 2, init_scale=1.0, hashing=Hashing("double", 8)),
    TableConfig("pair", 50, 2, init_scale=1.0, hashing=Hashing("quotient_remainder", 7)),
]
LAYERS = {
    shards: ShardedEmbedding(
        TABLES, [EmbeddedFeature(t.name, t.name) for t in TABLES], shards=shards, sets=2, seed=3
    )
    for shards in (1, 4)
}


@settings(max_examples=25)
@given(st.sampled_from(TABLES), st.sampled_from([1, 4]), st.integers(0, 10**6), st.integers(1, 60))
def test_they_are_what_is_looked_up(table: TableConfig, shards: int, seed: int, size: int) -> None:
    layer, draw = LAYERS[shards], np.random.default_rng(seed)
    chosen = draw.random(table.rows + 1) < draw.random()
    ids = np.append(np.flatnonzero(chosen[:-1]), [-1] * int(chosen[-1]))
    asked = np.zeros((len(ids), len(TABLES)), np.int64)
    asked[:, TABLES.index(table)] = ids
    fields = layer(tf.constant(asked))[table.dim]  # (N, F, K, D)
    place = layer.fields(table.dim).index(table.name)
    expected = fields.numpy()[:, place].reshape(len(ids), layer.sets * table.dim)
    before, room._BLOCK_BYTES = room._BLOCK_BYTES, 4 * size * layer.sets * table.dim
    try:
        blocks = list(id_embeddings(layer, table.name, chosen))
    finally:
        room._BLOCK_BYTES = before
    assert all(0 < len(block) <= size for block in blocks)
    found = np.concatenate([np.zeros((0, 2 * table.dim), np.float32), *blocks])
    np.testing.assert_array_equal(found, expected)


def test_a_mask_of_another_table_is_refused() -> None:
    with pytest.raises(ValueError, match=r"37 ids and the missing one, not \(37,\)"):
        next(id_embeddings(LAYERS[1], "item", np.ones(37, bool)))
