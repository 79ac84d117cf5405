"""What the benchmark of a cluster counts, and a tiny run of it."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import cluster
from benchmarks.cluster_worker import distinct_rows
from lfm4ads_tf.embeddings.table import EmbeddedFeature, ShardedEmbedding, TableConfig


def test_a_row_is_counted_once_however_it_is_read() -> None:
    tables = [TableConfig("user", 9, 4), TableConfig("item", 20, 4), TableConfig("word", 7, 2)]
    features = [
        EmbeddedFeature("user", "user"),
        EmbeddedFeature("item", "item"),
        EmbeddedFeature("seen", "item", "mean"),
        EmbeddedFeature("words", "word", "sum"),
    ]
    layer = ShardedEmbedding(tables, features)
    draw = np.random.default_rng(0)
    ids = draw.integers(-1, 9, (30, 2))
    bags = {"seen": draw.integers(-1, 20, 50), "words": draw.integers(0, 7, 6)}

    def take(rows: np.ndarray, refresh: str) -> dict[str, Any]:
        assert refresh == "frozen"
        held = {name: SimpleNamespace(values=values) for name, values in bags.items()}
        return {"ids": ids[rows], "bags": held}

    found = distinct_rows(layer, SimpleNamespace(take=take), np.arange(10))
    # a missing id has a row of its own; in a bag it reads the first row, with weight 0
    read = {("user", int(u)) for u, _ in ids[:10]} | {("item", int(i)) for _, i in ids[:10]}
    read |= {("item", max(0, int(i))) for i in bags["seen"]}
    assert found == {"4": len(read), "2": len(set(bags["words"].tolist()))}


def test_processor_time_and_memory_are_those_of_the_process() -> None:
    times = os.times()
    before = times.user + times.system
    assert cluster.cpu_seconds(os.getpid()) >= before - 0.05
    sizes = cluster.memory_mb(os.getpid())
    assert 10 < sizes["now"] <= sizes["peak"]


@pytest.mark.slow
def test_a_small_table_is_made_trained_saved_and_restored(tmp_path: Path) -> None:
    result = cluster.memory(rows=3000, dim=4, folder=tmp_path, say=lambda line: None)
    assert result["restored_equal"]
    assert result["planned_mb"] == 3001 * 5 * 4 / 2 / 2**20
    assert set(result["growth_over_plan"]) <= set(result["seconds"])
    assert result["chief_peak_mb"] >= result["memory_mb"]["before"]["chief"]["now"]
