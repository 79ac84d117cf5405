from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm4ads_tf.data.cache import INDEX, Bag, CacheContent, EncodedCache, write_cache
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.layout import DenseField, FeatureLayout, IdField, TableField


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=1, max_size=8), st.data())
def test_bag_take_selects_lists(lists: list[list[int]], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=6))
    values = np.array([v for one in lists for v in one], np.int32)
    splits = np.concatenate([[0], np.cumsum([len(one) for one in lists])])
    taken = Bag(values, splits, values / 2).take(np.array(rows, np.int64))
    found = [
        taken.values[a:b].tolist() for a, b in zip(taken.splits, taken.splits[1:], strict=False)
    ]
    assert found == [lists[r] for r in rows]
    assert taken.weights is not None
    assert np.array_equal(taken.weights, taken.values / 2)


def content() -> CacheContent:
    rng = np.random.default_rng(0)
    layout = FeatureLayout(
        fields=(
            IdField("u", "user", "u"),
            IdField("i", "item", "i"),
            IdField("seq", "user", "i", "mean"),
            IdField("tags", "item", "tags", "sum"),
        ),
        dense=(DenseField("age", "user"), DenseField("rate", "item"), DenseField("p", "item", 2)),
        tables=(TableField("u", 9), TableField("i", 7, 3), TableField("tags", 5)),
        scenarios=("a", "b"),
        tasks=("click",),
        segments=("new", "rare"),
    )
    lengths = np.array([2, 0, 1, 3, 0, 1])
    splits = np.concatenate([[0], np.cumsum(lengths)])
    columns = {
        "ids": rng.integers(-1, 7, (6, 2)).astype(np.int32),
        "dense": rng.normal(size=(6, 4)).astype(np.float32),
        "labels": np.array([[0], [1], [np.nan], [1], [0], [1]], np.float32),
        "scenario": np.array([1, 0, 1, -1, 0, 1], np.int32),
        "branch": np.array([0, 1, 0, 0, 1, 1], np.int8),
        "segments": np.array([[0, 1, 1, 0, 1, 1], [0, 0, 0, 1, 0, 0]], bool).T,
        "user": np.array([0, 1, 0, 2, 1, 1], np.int32),
        "item": np.array([0, 0, 1, 1, 2, 2], np.int32),
        "time": np.arange(6.0),
        "split": np.array([3, 0, 0, 1, 1, 2], np.int8),
        "period": np.array([-1, 0, 1, 2, 2, 3], np.int32),
        "ahead_row": np.array([2, 1, 4]),
        "ahead_period": np.array([2, 1, 2], np.int32),
        "ahead_daily": np.array([False, False, True]),
        "ahead_dense": np.array([[7], [8], [9]], np.float32),
    }
    return CacheContent(
        layout=layout,
        columns=columns,
        bags={
            "seq": Bag(np.arange(7, dtype=np.int32), splits),
            "tags": Bag(np.ones(7, np.int32), splits, np.linspace(0, 1, 7).astype(np.float32)),
        },
        moving_columns=[1],
        moving_dense=np.full((6, 1), 5, np.float32),
        moving_bags={"seq": Bag(np.arange(7, dtype=np.int32)[::-1], splits)},
        ahead_columns=[1],
        ahead_bags={"seq": Bag(np.array([4, 4, 5], np.int32), np.array([0, 2, 2, 3]))},
        best_possible=None,
        keys={"user": pa.array(["x", "y", "z"]), "item": pa.array(["1", "2", "3"])},
        manifest={"periods": ["0", "1", "2", "3"]},
    )


@pytest.fixture
def written(tmp_path: Path) -> tuple[CacheContent, EncodedCache]:
    made = content()
    write_cache(tmp_path, made)
    return made, EncodedCache(tmp_path)


def test_round_trip(written: tuple[CacheContent, EncodedCache]) -> None:
    made, cache = written
    assert cache.rows == 6
    assert cache.layout == made.layout
    for name in INDEX:
        np.testing.assert_array_equal(getattr(cache, name), made.columns[name])
    assert cache.keys("user").to_pylist() == ["x", "y", "z"]
    assert cache.keys("item").to_pylist() == ["1", "2", "3"]
    assert cache.manifest["periods"] == ["0", "1", "2", "3"]
    assert cache.best_possible is None


def test_rows_of_splits_and_scenarios(written: tuple[CacheContent, EncodedCache]) -> None:
    cache = written[1]
    assert cache.auxiliary_rows.tolist() == [0]
    assert cache.train_rows.tolist() == [1, 2]
    assert cache.rows_of("valid").tolist() == [3, 4]
    assert cache.rows_of("valid", "a").tolist() == [4]
    assert cache.rows_of("test", "b").tolist() == [5]
    assert cache.rows_of("test", "a").tolist() == []
    # Row 0 is auxiliary: it is in no split.
    assert cache.rows_of("train", "new").tolist() == [1, 2]
    assert cache.rows_of("valid", "new").tolist() == [4]
    assert cache.rows_of("valid", "rare").tolist() == [3]
    assert cache.rows_of("test", "rare").tolist() == []


def test_a_cache_of_another_version_is_refused(tmp_path: Path) -> None:
    write_cache(tmp_path, content())
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    del manifest["format"]  # as the first version wrote it
    path.write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(UserError, match="another version.*\n.*format 1, not 3"):
        EncodedCache(tmp_path)


def test_rows_ahead_carry_the_moving_features_of_the_later_period(
    written: tuple[CacheContent, EncodedCache],
) -> None:
    made, cache = written
    assert cache.ahead(2).tolist() == [0]
    assert cache.ahead(2, daily=True).tolist() == [2]
    places = np.array([2, 0])
    batch = cache.take_ahead(places)
    np.testing.assert_array_equal(batch["ids"], made.columns["ids"][[4, 2]])
    expected = made.columns["dense"][[4, 2]].copy()
    expected[:, 1] = [9, 7]
    np.testing.assert_array_equal(batch["dense"], expected)
    assert batch["bags"]["seq"].values.tolist() == [5, 4, 4]
    assert batch["bags"]["seq"].splits.tolist() == [0, 1, 3]
    assert (
        batch["bags"]["tags"].splits.tolist()
        == cache.take(np.array([4, 2]))["bags"]["tags"].splits.tolist()
    )


def test_take_frozen_and_daily(written: tuple[CacheContent, EncodedCache]) -> None:
    made, cache = written
    rows = np.array([5, 0, 3])
    frozen, daily = cache.take(rows), cache.take(rows, "daily")
    np.testing.assert_array_equal(frozen["ids"], made.columns["ids"][rows])
    np.testing.assert_array_equal(frozen["dense"], made.columns["dense"][rows])
    for name in ("scenario", "branch", "item"):
        np.testing.assert_array_equal(frozen[name], made.columns[name][rows])
        assert frozen[name].dtype == np.int64
    assert frozen["ids"].dtype == np.int64
    expected = made.columns["dense"][rows].copy()
    expected[:, 1] = 5
    np.testing.assert_array_equal(daily["dense"], expected)
    assert frozen["bags"]["seq"].values.tolist() == [6, 0, 1, 3, 4, 5]
    assert daily["bags"]["seq"].values.tolist() == [0, 6, 5, 3, 2, 1]
    assert daily["bags"]["seq"].splits.tolist() == [0, 1, 3, 6]
    np.testing.assert_array_equal(
        daily["bags"]["tags"].weights, np.linspace(0, 1, 7).astype(np.float32)[[6, 0, 1, 3, 4, 5]]
    )
    # Reading the daily state must not write into the frozen one.
    np.testing.assert_array_equal(cache.take(rows)["dense"], made.columns["dense"][rows])


def test_without_moving_features_daily_is_frozen(tmp_path: Path) -> None:
    made = content()
    still: dict[str, Any] = {"moving_columns": [], "moving_dense": None, "moving_bags": {}}
    write_cache(tmp_path, CacheContent(**{**made.__dict__, **still}))
    cache = EncodedCache(tmp_path)
    rows = np.arange(6)
    np.testing.assert_array_equal(cache.take(rows, "daily")["dense"], made.columns["dense"])


def test_stored_gives_consecutive_rows_of_both_states(
    written: tuple[CacheContent, EncodedCache],
) -> None:
    made, cache = written
    columns, bags = cache.stored(slice(2, 5))
    for name in ("ids", "dense", "labels", "scenario", "branch", "item"):
        np.testing.assert_array_equal(columns[name], made.columns[name][2:5])
    assert columns["dense_daily"].tolist() == [[5], [5], [5]]
    rows = np.arange(2, 5)
    for name, bag in {**made.bags, "seq@daily": made.moving_bags["seq"]}.items():
        expected = bag.take(rows)
        assert bags[name].values.tolist() == expected.values.tolist()
        assert bags[name].splits.tolist() == expected.splits.tolist()
        assert (bags[name].weights is None) == (expected.weights is None)
