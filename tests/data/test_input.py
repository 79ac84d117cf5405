from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.batch import read
from lfm4ads_tf.data.input import apply, batches
from lfm4ads_tf.errors import UserError


def order_of(ads: Any) -> np.ndarray:
    return np.random.default_rng(3).permutation(ads.raw.rows)[:70]


@pytest.mark.parametrize("refresh", ["frozen", "daily"])
def test_batches_hold_the_rows_of_take(ads: Any, refresh: Any) -> None:
    order = order_of(ads)
    found = list(batches(ads.cache, order, 32, refresh=refresh))
    assert [len(b["ids"]) for b in found] == [32, 32, 6]
    for k, batch in enumerate(found):
        expected = ads.cache.take(order[32 * k : 32 * (k + 1)], refresh)
        for key in ("ids", "dense", "scenario", "item", "labels"):
            np.testing.assert_array_equal(batch[key].numpy(), expected[key])
        assert (
            set(batch["bags"]) == set(expected["bags"]) == {"interests", "pages", "clicked", "tags"}
        )
        for name, bag in expected["bags"].items():
            ids, weights = batch["bags"][name]
            np.testing.assert_array_equal(ids.values.numpy(), bag.values)
            np.testing.assert_array_equal(ids.row_splits.numpy(), bag.splits)
            assert (weights is None) == (bag.weights is None)
            if weights is not None:
                np.testing.assert_array_equal(weights.values.numpy(), bag.weights)
                np.testing.assert_array_equal(weights.row_splits.numpy(), bag.splits)
        assert batch["representations"] == {}


def test_start_skips_whole_batches(ads: Any) -> None:
    order = order_of(ads)
    every = list(batches(ads.cache, order, 16))
    resumed = list(batches(ads.cache, order, 16, start=2))
    assert len(resumed) == len(every) - 2
    for one, other in zip(every[2:], resumed, strict=True):
        np.testing.assert_array_equal(one["dense"].numpy(), other["dense"].numpy())
        np.testing.assert_array_equal(one["ids"].numpy(), other["ids"].numpy())
    assert list(batches(ads.cache, order, 16, start=5)) == []


def test_representations_travel_by_name(ads: Any) -> None:
    def lookup(rows: np.ndarray) -> dict[str, np.ndarray]:
        vector = np.stack([rows, rows * 2, np.ones(len(rows))], axis=1)
        return {
            "UR": vector.astype(np.float32),
            "CR_user@cross_1": vector[:, :2].astype(np.float32),
        }

    order = order_of(ads)
    data = batches(ads.cache, order, 50, representations=lookup)
    spec = data.element_spec["representations"]
    assert spec["UR"].shape.as_list() == [None, 3]
    rows = np.concatenate([b["representations"]["CR_user@cross_1"].numpy()[:, 0] for b in data])
    assert np.array_equal(rows.astype(int), order)


def test_apply_traces_once(ads: Any) -> None:
    traced = []

    def total(batch: Any) -> tf.Tensor:
        traced.append(1)
        return tf.reduce_sum(batch["dense"], axis=1)

    order = order_of(ads)
    values = np.concatenate([v.numpy() for v in apply(total, batches(ads.cache, order, 32))])
    np.testing.assert_allclose(
        values, ads.cache.take(order)["dense"].sum(axis=1), rtol=1e-5, atol=1e-4
    )
    assert len(traced) == 1


def test_windows_are_asked_for_once_and_in_time(ads: Any) -> None:
    window, batch = 20, 8
    order = np.concatenate([np.random.default_rng(0).permutation(20) + 20 * k for k in range(4)])
    order = order[:70]
    asked: list[slice] = []

    class Spy:
        take = staticmethod(ads.cache.take)
        read_ahead = staticmethod(asked.append)

    data = batches(Spy(), order, batch, window=window)  # type: ignore[arg-type]
    seen = 0
    for one in data:
        seen += len(one["ids"])
        rows = order[:seen]
        assert any(s.stop > rows.max() for s in asked)
    expected = [order[20 * k : 20 * k + 20] for k in range(4)]
    assert asked == [slice(w.min(), w.max() + 1) for w in expected]
    asked.clear()
    list(batches(Spy(), order, batch, start=6, window=window))  # type: ignore[arg-type]
    assert asked == [slice(w.min(), w.max() + 1) for w in expected[2:]]


def test_reading_ahead_changes_no_batch(ads: Any) -> None:
    order = np.arange(ads.cache.rows)
    ahead = list(batches(ads.cache, order, 64, window=128, refresh="daily"))
    plain = list(batches(ads.cache, order, 64, refresh="daily"))
    for one, other in zip(ahead, plain, strict=True):
        np.testing.assert_array_equal(one["ids"].numpy(), other["ids"].numpy())
        np.testing.assert_array_equal(one["dense"].numpy(), other["dense"].numpy())


def test_read_reports_the_error_of_the_user(ads: Any) -> None:
    class Broken:
        def take(self, rows: np.ndarray, refresh: Any) -> Any:
            if rows.max() >= 50:
                raise UserError("File 'x' is damaged.")
            return ads.cache.take(rows, refresh)

    data = batches(Broken(), np.arange(100), 10)  # type: ignore[arg-type]
    found = []
    with pytest.raises(UserError, match="File 'x' is damaged"):
        found += [len(b["ids"]) for b in read(data)]
    with pytest.raises(tf.errors.OpError):
        list(data)
