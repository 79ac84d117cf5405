"""Layers with optimizers, and what is stored of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lfm4ads_tf.embeddings.hashing import Hashing
from lfm4ads_tf.embeddings.table import ShardedEmbedding, TableConfig
from lfm4ads_tf.optim.hybrid_optimizer import HybridOptimizer
from lfm4ads_tf.optim.rules.row_rule import row_rule

RULES = ["adagrad", "rowwise_adagrad", "adam", "ftrl", "sgd"]
TABLES = [
    TableConfig("user", 20, 4),
    TableConfig("item/id", 15, 4, storage="bfloat16"),
    TableConfig("item id", 9, 3, storage="float16"),
    TableConfig("fixed", 6, 4, trainable=False),
    TableConfig("big", 500, 3, hashing=Hashing("double", 11)),
    TableConfig("words", 100, 3, hashing=Hashing("quotient_remainder", 10)),
]
Pair = tuple[ShardedEmbedding, HybridOptimizer]


def pair(tables: list[TableConfig], seed: int = 1, rule: str = "adagrad", **options: int) -> Pair:
    """A layer and its optimizer, all slots random."""
    layer = ShardedEmbedding(tables, [], seed=seed, **{"sets": 2, **options})  # type: ignore[arg-type]
    optimizer = HybridOptimizer(0.1, 0.1, rule=row_rule(rule))
    optimizer.build([layer], [])
    rng = np.random.default_rng(seed)
    for config in tables:
        for name, old in state((layer, optimizer), config.name).items():
            if name != "weights":
                slot = optimizer.slot(layer, layer.layout.home(config.name).name, name)
                layer.write_rows(config.name, 0, rng.random(old.shape), slot)
    return layer, optimizer


def state(of: Pair, name: str) -> dict[str, np.ndarray]:
    """The rows of a table and of its slots, the missing id's row last."""
    layer, optimizer = of
    config = layer.layout.table(name)
    rows = (0, config.stored_rows + 1)
    found = {"weights": layer.read_rows(name, *rows)}
    if config.trainable:
        for slot in optimizer.rule.slots:
            variable = optimizer.slot(layer, layer.layout.home(name).name, slot.name)
            found[slot.name] = layer.read_rows(name, *rows, variable)
    return found


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def damages(*, rows: int) -> dict[str, Callable[[Path], object]]:
    """What may happen to a stored file of (rows, 8) float32, by name."""
    return {
        "cut": lambda path: os.truncate(path, path.stat().st_size - 1),
        "empty": lambda path: os.truncate(path, 0),
        "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
        "other shape": lambda path: np.save(path, np.zeros((3, 8), np.float32)),
        "other type": lambda path: np.save(path, np.zeros((rows, 8))),
        "no array": lambda path: path.write_bytes(b"text" * 50),
        "gone": lambda path: path.unlink(),
        "flipped": _flip,
    }


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)
