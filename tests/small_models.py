"""A layout with single and multi-valued fields of two widths, and random batches of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.embeddings.config import EmbeddingsConfig
from lfm4ads_tf.features.layout import DenseField, FeatureLayout, IdField, TableField
from lfm4ads_tf.models.config import NetworkConfig
from lfm4ads_tf.strict import parse

LAYOUT = FeatureLayout(
    fields=(
        IdField("user", "user", "user"),
        IdField("city", "user", "city"),
        IdField("history", "user", "item", "mean"),
        IdField("item", "item", "item"),
        IdField("tags", "item", "tags", "sum"),
        IdField("brand", "item", "brand"),
        IdField("tab", "context", "tab"),
    ),
    dense=(DenseField("age", "user"), DenseField("v", "item", 2), DenseField("hour", "context")),
    tables=(
        TableField("user", 20),
        TableField("city", 5, 3),
        TableField("item", 15),
        TableField("tags", 9, 3),
        TableField("brand", 4),
        TableField("tab", 3, 2),
    ),
    scenarios=("t0", "t1", "t2"),
    tasks=("click", "buy"),
)


EMBEDDINGS = EmbeddingsConfig(dim=4, init_scale=0.5)
NETWORK = parse(
    NetworkConfig,
    {
        "user_tower": [6, 4],
        "item_tower": [3],
        "block": {
            "layers": [
                {"type": "fm", "dim": 4},
                {"type": "cross", "depth": 1},
                {"type": "dnn", "units": [5]},
            ]
        },
    },
    source="network",
)


def random_batch(rows: int = 12, seed: int = 0) -> dict[str, Any]:
    """A random batch of `LAYOUT`."""
    rng = np.random.default_rng(seed)
    sizes = {t.name: t.rows for t in LAYOUT.tables}

    def bag(name: str) -> tf.RaggedTensor:
        lengths = rng.integers(0, 4, rows)
        values = rng.integers(0, sizes[name], lengths.sum())
        return tf.RaggedTensor.from_row_lengths(values, lengths)

    tags = bag("tags")
    weights = tags.with_values(tf.constant(rng.random(tags.values.shape[0]), tf.float32))
    singles = [rng.integers(-1, sizes[f.table], rows) for f in LAYOUT.single]
    return {
        "ids": tf.constant(np.stack(singles, axis=1), tf.int64),
        "bags": {"history": (bag("item"), None), "tags": (tags, weights)},
        "dense": tf.constant(rng.normal(size=(rows, LAYOUT.dense_width)), tf.float32),
        "scenario": tf.constant(rng.integers(-1, 3, rows), tf.int64),
        "item": tf.constant(rng.integers(0, 6, rows), tf.int64),
        "labels": tf.constant(rng.integers(0, 2, (rows, 2)), tf.float32),
        "representations": {},
    }


@pytest.fixture
def layout() -> FeatureLayout:
    """User, item and context fields of widths 4 (the default), 3 and 2."""
    return LAYOUT


@pytest.fixture
def embeddings() -> EmbeddingsConfig:
    """Width 4, initial values large enough to matter."""
    return EMBEDDINGS


@pytest.fixture
def network() -> NetworkConfig:
    """Small towers and one layer of each type."""
    return NETWORK


@pytest.fixture
def make_batch() -> Callable[..., dict[str, Any]]:
    """`make_batch(rows, seed)`: a random batch of the layout."""
    return random_batch


@pytest.fixture
def randomize() -> Callable[..., None]:
    """Gives a model's dense weights random values: zeros would hide errors."""

    def fill(model: Any, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        for variable in model.trainable_variables:
            if "table_" not in variable.name:
                variable.assign(rng.normal(0, 0.5, size=variable.shape))

    return fill
