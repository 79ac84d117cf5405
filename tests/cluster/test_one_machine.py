"""Without a cluster, tables are read and moved by the operations they always were."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.embeddings.placement.beside import beside
from lfm4ads_tf.embeddings.placement.server import on_server
from lfm4ads_tf.embeddings.table_shards import partitioned_variable, parts_of, read_shards
from lfm4ads_tf.kernels.library import stock_ops
from lfm4ads_tf.optim.row_update import update_rows
from lfm4ads_tf.optim.rules.adagrad import Adagrad


def kinds(function: tf.types.experimental.PolymorphicFunction) -> set[str]:
    """Types of the operations of a function of nothing."""
    return {op.type for op in function.get_concrete_function().graph.get_operations()}


def test_no_variable_lies_on_a_server_and_nothing_is_placed() -> None:
    variable = tf.Variable([1.0])
    assert not on_server(variable)
    with beside(variable), tf.device("/CPU:0"):
        assert tf.Variable([2.0]).device == variable.device


@pytest.mark.parametrize("shards", [1, 2])
def test_rows_are_read_as_often_as_they_are_asked_for(shards: int) -> None:
    parts = parts_of(partitioned_variable("t", 9, 2, shards, 0.5, trainable=True))
    rows = tf.constant([3, 3, 8], tf.int64)
    found = kinds(tf.function(lambda: read_shards(parts, rows), autograph=False))
    assert "ResourceGather" in found
    assert "Unique" not in found


def test_rows_are_overwritten_with_what_the_rule_says_bit_by_bit() -> None:
    rng = np.random.default_rng(0)
    table = tf.Variable(rng.normal(size=(6, 4)).astype(np.float32))
    slot = tf.Variable(np.full((6, 4), 0.1, np.float32))
    rows = tf.constant([4, 1], tf.int64)
    values = tf.constant(rng.normal(size=(2, 4)), tf.float32)
    rule, rate = Adagrad(), tf.constant(0.3)
    weights, state = tf.gather(table, rows)[:, tf.newaxis], tf.gather(slot, rows)[:, tf.newaxis]
    after, states = rule.update(weights, (state,), values[:, tf.newaxis], rate)

    def step() -> None:
        update_rows(rule, table, [slot], tf.IndexedSlices(values, rows), rate, sets=1)

    with stock_ops():
        step()
        found = kinds(tf.function(step, autograph=False))
    np.testing.assert_array_equal(tf.gather(table, rows), after[:, 0])
    np.testing.assert_array_equal(tf.gather(slot, rows), states[0][:, 0])
    assert "ResourceScatterUpdate" in found
    assert "ResourceScatterNdAdd" not in found
