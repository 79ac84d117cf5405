"""Queries, candidates and recall against loops over the rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lfm4ads_tf.data.splits import AUXILIARY, TRAIN
from lfm4ads_tf.pipeline.retrieval_data import Candidates, Queries, SeenItems, recall, rows_of


@pytest.mark.parametrize("scenario", ["all", "t1"])
@pytest.mark.parametrize("split", ["valid", "test"])
def test_queries_are_users_with_a_positive(ads: Any, split: str, scenario: str) -> None:
    cache = ads.cache
    queries = Queries.of(cache, split, scenario, 0)
    rows = rows_of(cache, split, scenario)
    expected: dict[int, set[int]] = {}
    first: dict[int, int] = {}
    for row in rows:
        user = int(cache.user[row])
        first.setdefault(user, row)
        if cache.labels[row, 0] == 1:
            expected.setdefault(user, set()).add(int(cache.item[row]))
    found = {
        int(cache.user[row]): set(queries.relevant[a:b].tolist())
        for row, a, b in zip(queries.rows, queries.splits, queries.splits[1:], strict=False)
    }
    assert found == expected and found
    assert [first[int(cache.user[r])] for r in queries.rows] == queries.rows.tolist()


def test_candidates_are_read_from_no_later_row_than_training_ends(ads: Any) -> None:
    cache = ads.cache
    candidates = Candidates.of(cache)
    assert np.array_equal(candidates.codes, np.unique(cache.item))
    for code, row in zip(candidates.codes, candidates.rows, strict=True):
        own = np.flatnonzero(cache.item == code)
        known = own[np.isin(cache.split[own], (TRAIN, AUXILIARY))]
        assert row == (known[-1] if len(known) else own[0])


@pytest.mark.parametrize("k", [3, 9, 50])  # 50: lists are shorter, seen items must not fill them
def test_recall_against_a_loop(ads: Any, k: int) -> None:
    cache = ads.cache
    queries, candidates = Queries.of(cache, "test", "all", 0), Candidates.of(cache)
    rng = np.random.default_rng(0)
    users = rng.normal(size=(len(queries.rows), 4))
    items = rng.normal(size=(len(candidates.codes), 4))
    values = []
    for q, row in enumerate(queries.rows):
        mine = (cache.user == cache.user[row]) & (cache.split == TRAIN) & (cache.labels[:, 0] == 1)
        hidden = set(cache.item[mine].tolist())
        order = candidates.codes[np.argsort(-(items @ users[q]))]
        top = [c for c in order if c not in hidden][:k]
        relevant = set(queries.relevant[queries.splits[q] : queries.splits[q + 1]].tolist())
        values.append(len(relevant & set(top)) / len(relevant))
    found = recall(cache, queries, users, candidates.codes, items, SeenItems(cache, 0), k)
    assert found is not None and abs(found - np.mean(values)) < 1e-12
