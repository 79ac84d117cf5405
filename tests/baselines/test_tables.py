"""Tables of encoded rows for trees and linear models, against loops over the rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lfm4ads_tf.baselines import tree_table
from lfm4ads_tf.baselines.sparse_table import SparseTable
from lfm4ads_tf.baselines.tree_table import TreeTable


def _lists(batch: dict[str, Any], name: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Values and weights of every row of a bag."""
    bag = batch["bags"][name]
    weights = np.ones(len(bag.values)) if bag.weights is None else bag.weights
    spans = list(zip(bag.splits, bag.splits[1:], strict=False))
    return [(bag.values[a:b], weights[a:b]) for a, b in spans]


@pytest.mark.parametrize("refresh", ["frozen", "daily"])
def test_the_tree_table_holds_what_a_loop_finds(
    ads: Any, refresh: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree_table, "COMMON", 3)
    monkeypatch.setattr(tree_table, "_BLOCK", 50)  # several blocks
    cache = ads.cache
    table = TreeTable(cache, branches=True)
    rows = np.flatnonzero(cache.split >= 0)
    batch, train = cache.take(rows, refresh), cache.take(cache.train_rows)
    columns = dict(zip(table.names, table.take(rows, refresh).T, strict=True))
    for k, field in enumerate(cache.layout.single):
        ids = batch["ids"][:, k].astype(float)
        ids[ids < 0] = np.nan
        assert np.array_equal(columns[field.name], ids, equal_nan=True)
    assert np.array_equal(columns["scenario"], batch["scenario"])
    assert np.array_equal(columns["branch"], batch["branch"])
    start = 0
    for dense in cache.layout.dense:
        for k in range(dense.width):
            assert np.array_equal(columns[f"{dense.name}[{k}]"], batch["dense"][:, start + k])
        start += dense.width
    names = [field.name for field in cache.layout.single]
    for field in cache.layout.bags:
        lists = _lists(batch, field.name)
        assert columns[f"{field.name} count"].tolist() == [len(v) for v, _ in lists]
        counts = np.bincount(train["bags"][field.name].values)
        common = [n for n in table.names if n.startswith(f"{field.name} has ")]
        values = [int(n.split()[-1]) for n in common if n.split()[-1] not in names]
        assert sorted(counts[values])[::-1] == sorted(counts[counts > 0])[::-1][:3]
        for value in values:
            expected = [w[v == value].sum() for v, w in lists]
            assert columns[f"{field.name} has {value}"] == pytest.approx(expected)
    own = [(v == i).sum() for (v, _), i in zip(_lists(batch, "clicked"),
           batch["ids"][:, names.index("item_id")], strict=True)]  # fmt: skip
    assert columns["clicked has item_id"].tolist() == own
    assert 0 < np.count_nonzero(own) < len(own)
    assert not any(name.startswith("tags has item") for name in columns)


def test_the_sparse_table_holds_what_a_loop_finds(ads: Any) -> None:
    cache = ads.cache
    table = SparseTable(cache, branches=False)
    rows = np.concatenate([cache.train_rows[:40], cache.rows_of("test")[:20]])
    batch, train = cache.take(rows, "daily"), cache.take(cache.train_rows)
    size = {t.name: t.rows for t in cache.layout.tables}
    parts = []
    for k, field in enumerate(cache.layout.single):
        parts.append(np.eye(size[field.table] + 1)[batch["ids"][:, k] + 1])
    parts.append(np.eye(len(cache.layout.scenarios) + 1)[batch["scenario"] + 1])
    for field in cache.layout.bags:
        pooled = np.zeros((len(rows), size[field.table]))
        for r, (values, weights) in enumerate(_lists(batch, field.name)):
            for value, weight in zip(values, weights, strict=True):
                pooled[r, value] += weight / weights.sum()
        parts.append(pooled)
    mean, deviation = train["dense"].mean(0), train["dense"].astype(np.float64).std(0)
    parts.append((batch["dense"] - mean) / np.where(deviation < 1e-6, 1.0, deviation))
    expected = np.concatenate(parts, axis=1)
    found = table.take(rows, "daily").toarray()
    assert found.shape == expected.shape == (60, table.width)
    np.testing.assert_allclose(found, expected, atol=2e-4)
