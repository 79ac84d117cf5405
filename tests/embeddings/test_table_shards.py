"""RowSpread and the cut into shards, against NumPy and TensorFlow's own partitioner."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.embeddings.table_shards import (
    RowSpread,
    partitioned_variable,
    parts_of,
    read_shards,
    scatter_rows,
    shard_bounds,
)
from lfm4ads_tf.errors import UserError
from tests.rounding import assert_close


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 3000), seed=st.integers(0, 2**40))
def test_spread_is_a_bijection_and_both_versions_agree(rows: int, seed: int) -> None:
    spread = RowSpread(rows, seed)
    logical = np.arange(rows)
    physical = spread.forward(logical)
    np.testing.assert_array_equal(np.sort(physical), logical)
    tensor = spread.forward_tensor(tf.constant(logical, tf.int64))
    np.testing.assert_array_equal(tensor, physical)


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(2**30, 2**31), seed=st.integers(0, 100), data=st.data())
def test_spread_does_not_overflow_on_the_largest_tables(rows: int, seed: int, data) -> None:
    spread = RowSpread(rows, seed)
    row = data.draw(st.integers(0, rows - 1))
    physical = (row * spread.multiplier + spread.shift) % rows  # Python integers do not overflow
    assert spread.forward(np.array([row])).tolist() == [physical]
    assert spread.forward_tensor(tf.constant([row], tf.int64)).numpy().tolist() == [physical]


@pytest.mark.parametrize("rows", [1000, 65_536, 100_003, 720_720])
@pytest.mark.parametrize("shards", [2, 3, 4, 7])
def test_a_run_of_hot_rows_is_shared_evenly_by_the_shards(rows: int, shards: int) -> None:
    hot = RowSpread(rows, seed=16).forward(np.arange(200))
    counts = [((hot >= a) & (hot < b)).sum() for a, b in shard_bounds(rows, shards)]
    assert max(counts) - min(counts) <= 0.1 * 200


def test_spread_depends_on_the_seed_but_not_on_the_process() -> None:
    assert RowSpread(1000, 1).shift != RowSpread(1000, 2).shift
    # pinned: checkpoints hold rows in this order
    np.testing.assert_array_equal(RowSpread(1000, 16).forward(np.arange(3)), [947, 576, 205])


@pytest.mark.parametrize("rows", [0, 2**31 + 1])
def test_spread_refuses_sizes_it_cannot_map(rows: int) -> None:
    with pytest.raises(UserError, match="out of range"):
        RowSpread(rows)


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 500), shards=st.integers(1, 8))
def test_bounds_are_those_of_numpy_array_split(rows: int, shards: int) -> None:
    sizes = [len(x) for x in np.array_split(np.arange(rows), min(shards, rows))]
    bounds = shard_bounds(rows, shards)
    assert [stop - start for start, stop in bounds] == sizes
    assert bounds[0][0] == 0 and bounds[-1][1] == rows
    assert all(a[1] == b[0] for a, b in zip(bounds[:-1], bounds[1:], strict=True))


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 60), shards=st.integers(1, 4), data=st.data())
def test_lookup_and_its_gradient_per_shard(rows: int, shards: int, data) -> None:
    table = np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)
    picked = np.array(data.draw(st.lists(st.integers(0, rows - 1), max_size=20)), np.int64)
    variable = partitioned_variable("t", rows, 3, shards, 0.0, trainable=True)
    parts = parts_of(variable)
    assert [part.shape[0] for part in parts] == [b - a for a, b in shard_bounds(rows, shards)]
    scatter_rows(parts, np.arange(rows), table)
    with tf.GradientTape() as tape:
        values = read_shards(parts, tf.constant(picked))
        loss = tf.reduce_sum(values * values)
    np.testing.assert_array_equal(values, table[picked])
    gradients = tape.gradient(loss, parts)
    assert all(isinstance(g, tf.IndexedSlices) for g in gradients)
    expected = np.zeros_like(table)
    np.add.at(expected, picked, 2 * table[picked])
    found = np.concatenate([tf.convert_to_tensor(g).numpy() for g in gradients])
    assert_close(found, expected, terms=24)


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 60), shards=st.integers(1, 4), data=st.data())
def test_scatter_overwrites_the_named_rows_only(rows: int, shards: int, data) -> None:
    variable = partitioned_variable("t", rows, 2, shards, 0.5, trainable=False)
    picked = np.array(
        data.draw(st.lists(st.integers(0, rows - 1), unique=True, max_size=rows)), np.int64
    )
    values = np.random.default_rng(0).normal(size=(len(picked), 2)).astype(np.float32)
    scatter_rows(parts_of(variable), picked, values)
    expected = np.full((rows, 2), 0.5, np.float32)
    expected[picked] = values
    np.testing.assert_array_equal(np.concatenate([p.numpy() for p in parts_of(variable)]), expected)
