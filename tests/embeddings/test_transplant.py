"""Tables carried into a grown layout, slots included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.embeddings.table import ShardedEmbedding, TableConfig
from lfm4ads_tf.embeddings.transplant import transplant
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.optim.hybrid_optimizer import HybridOptimizer
from lfm4ads_tf.optim.rules.adagrad import Adagrad

OLD = [TableConfig("user", 20, 4), TableConfig("item", 15, 4), TableConfig("gone", 5, 2)]
NEW = [TableConfig("new", 8, 4), TableConfig("item", 19, 4), TableConfig("user", 20, 4)]


def randomized(
    tables: list[TableConfig], shards: int, seed: int
) -> tuple[ShardedEmbedding, HybridOptimizer]:
    """A layer and an optimizer whose slots hold random values."""
    layer = ShardedEmbedding(tables, [], shards=shards, sets=2, seed=seed)
    optimizer = HybridOptimizer(0.1, 0.1)
    optimizer.build([layer], [])
    rng = np.random.default_rng(seed)
    for table in tables:
        slot = optimizer.slot(layer, str(table.dim), "accumulator")
        values = rng.random((table.rows + 1, 2 * table.dim))
        layer.write_rows(table.name, 0, values, slot)
    return layer, optimizer


def read(layer: ShardedEmbedding, optimizer: HybridOptimizer, name: str) -> np.ndarray:
    """Table and slot side by side, (rows + 1, 2 * floats)."""
    table = layer.layout.table(name)
    slot = optimizer.slot(layer, str(table.dim), "accumulator")
    rows = (0, table.rows + 1)
    return np.hstack([layer.read_rows(name, *rows), layer.read_rows(name, *rows, slot)])


@pytest.mark.parametrize("source_shards, target_shards", [(1, 1), (3, 1), (1, 4), (2, 3)])
def test_common_tables_are_copied_by_name(source_shards: int, target_shards: int) -> None:
    source = randomized(OLD, source_shards, 1)
    target = randomized(NEW, target_shards, 2)
    before = {table.name: read(*target, table.name) for table in NEW}
    assert transplant(source[0], target[0], source[1], target[1]) == ("item", "user")
    np.testing.assert_array_equal(read(*target, "user"), read(*source, "user"))
    item, old = read(*target, "item"), read(*source, "item")
    np.testing.assert_array_equal(item[:15], old[:15])
    np.testing.assert_array_equal(item[19], old[15])  # the missing id
    np.testing.assert_array_equal(item[15:19], before["item"][15:19])
    np.testing.assert_array_equal(read(*target, "new"), before["new"])


def test_without_optimizers_the_slots_stay() -> None:
    source, target = randomized(OLD, 1, 1), randomized(NEW, 1, 2)
    before = read(*target, "user")
    transplant(source[0], target[0])
    after = read(*target, "user")
    np.testing.assert_array_equal(after[:, :8], read(*source, "user")[:, :8])
    np.testing.assert_array_equal(after[:, 8:], before[:, 8:])


def test_a_checkpoint_of_an_old_layout_is_carried_into_a_new_one(tmp_path: Path) -> None:
    layer, optimizer = randomized(OLD, 3, 1)
    saved = tf.train.Checkpoint(layer=layer, optimizer=optimizer).write(str(tmp_path / "ckpt"))
    source = ShardedEmbedding.from_manifest(layer.manifest(), shards=1, seed=9)
    source_optimizer = HybridOptimizer(0.1, 0.1)
    source_optimizer.build([source], [])
    checkpoint = tf.train.Checkpoint(layer=source, optimizer=source_optimizer)
    checkpoint.read(saved).assert_consumed()
    target = randomized(NEW, 2, 5)
    transplant(source, target[0], source_optimizer, target[1])
    np.testing.assert_array_equal(read(*target, "user"), read(layer, optimizer, "user"))


@pytest.mark.parametrize(
    "table", [TableConfig("user", 19, 4), TableConfig("user", 20, 2), TableConfig("user", 30, 8)]
)
def test_a_table_that_does_not_fit_is_refused_before_anything_is_written(
    table: TableConfig,
) -> None:
    source = randomized(OLD, 1, 1)
    target = ShardedEmbedding([OLD[1], table], [], sets=2, seed=2)
    before = target.read_table("item")
    with pytest.raises(UserError, match="'user' does not fit"):
        transplant(source[0], target)
    np.testing.assert_array_equal(target.read_table("item"), before)


def test_slots_of_another_kind_are_refused() -> None:
    source, target = randomized(OLD, 1, 1), ShardedEmbedding(OLD, [], sets=2)
    optimizer = HybridOptimizer(0.1, 0.1, rule=Adagrad(row_wise=True))
    optimizer.build([target], [])
    with pytest.raises(UserError, match="differ in kind"):
        transplant(source[0], target, source[1], optimizer)
