from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm4ads_tf.data.append import append_to
from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.data.first_period import join_first, spread_of
from lfm4ads_tf.data.new_rows import read_files
from lfm4ads_tf.data.splits import AUXILIARY, TEST, TRAIN, VALID
from lfm4ads_tf.features.fitted_encoding import FittedEncoding
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.spec_file import parse_spec

AGE = {"owner": "user", "kind": "numeric"}
VALUES = st.lists(st.sampled_from([0.0, 0.0, 0.0, 1.0, 2.5, float("nan"), float("inf")]))


def spec_of(features: dict[str, Any] | None = None, **period: Any) -> FeatureSpec:
    return parse_spec(
        {
            "name": "s",
            "log": {"files": ["log.csv"], "user_columns": ["age", "size"]},
            "keys": {"user": "u", "item": "i", "time": "t", "scenario": "tab"},
            "tasks": {"click": "click"},
            "split": {"by": "day", "train_until": 6, "valid_until": 7},
            "period": {"by": "day", **period},
            "features": features or {"age": AGE},
        }
    )


def days_of(*days: list[float] | np.ndarray) -> tuple[dict[str, pa.Array], np.ndarray]:
    """The column `age` and the period of every row, given each day's values."""
    period = np.repeat(np.arange(len(days)), [len(d) for d in days]).astype(np.int32)
    return {"age": pa.array(np.concatenate(days).astype(float))}, period


def joined(spec: FeatureSpec, columns: Any, period: np.ndarray, split: Any = None) -> int:
    """How many of the first periods became one."""
    names = [str(k) for k in range(period.max() + 1)]
    split = np.full(len(period), TRAIN) if split is None else split
    found, left = join_first(spec, columns, split, period, names)
    k = len(names) - len(left) + 1
    first = period[split == TRAIN].min()
    expected = np.where(period > first, np.maximum(period - k + 1, first), period)
    np.testing.assert_array_equal(found, expected)
    return k


@given(VALUES, VALUES, st.sampled_from([None, 2, 5]))
def test_more_rows_never_take_away_what_suffices(
    some: list[float], more: list[float], buckets: int | None
) -> None:
    before, after = spread_of(np.array(some)), spread_of(np.array(some + more))
    assert before.suffices(buckets) <= after.suffices(buckets)
    known = [v for v in some if np.isfinite(v)]
    least = max(30, 10 * (buckets or 0))
    most = max((known.count(v) for v in known), default=0)
    assert before.suffices(buckets) == (len(known) >= least and len(known) - most >= 10)


def test_a_number_that_is_constant_at_first_makes_it_longer() -> None:
    columns, period = days_of(np.zeros(60), np.arange(60.0), np.arange(60.0), np.arange(60.0))
    assert joined(spec_of(), columns, period) == 2
    assert joined(spec_of(first_at_most=1), columns, period) == 1
    plain = {"age": {**AGE, "standardize": False}}
    assert joined(spec_of(plain), columns, period) == 1  # nothing is fitted
    own = {"age": {**AGE, "transform": "buckets", "boundaries": [1.0, 2.0]}}
    assert joined(spec_of(own), columns, period) == 1


def test_buckets_need_ten_values_each() -> None:
    columns, period = days_of(*[np.arange(40.0)] * 4)
    for buckets, k in ((4, 1), (5, 2), (12, 3), (13, 1)):  # 13 need more than 3 days hold
        feature = {**AGE, "transform": "buckets", "buckets": buckets}
        assert joined(spec_of({"age": feature}), columns, period) == k


def test_what_never_varies_makes_nothing_longer_and_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    columns, period = days_of(*[np.zeros(40)] * 3, np.arange(5, 45.0))
    columns["size"] = pa.array(np.tile(np.arange(40.0), 4))
    spec = spec_of({"age": AGE, "size": AGE})
    assert joined(spec, columns, period) == 1
    (message,) = [r.getMessage() for r in caplog.records]
    assert "'age'" in message and "one value (0) in 40 rows in the first training" in message
    assert "in the first 3." in message and "120 from 0 to 44" in message
    assert "raise period.first_at_most" in message
    caplog.clear()
    columns["age"] = pa.array(np.full(160, 7.0))
    assert joined(spec, columns, period) == 1
    assert "one value (7)" in caplog.text and "It is constant: remove it" in caplog.text


def test_what_is_joined_is_told(caplog: pytest.LogCaptureFixture) -> None:
    columns, period = days_of(np.zeros(60), np.arange(70.0), np.arange(60.0))
    with caplog.at_level("INFO"):
        assert joined(spec_of(), columns, period) == 2
    assert "the first 2 of 3 training periods (130 rows, 0 to 1) count as one" in caplog.text
    assert "'age' has one value (0) in 60 rows in the first alone" in caplog.text
    caplog.clear()
    columns, period = days_of(np.zeros(60), np.arange(70.0))
    assert joined(spec_of(), columns, period) == 2
    assert "the first period holds all 2 training periods" in caplog.text


def test_only_training_rows_count_and_no_held_out_row_is_joined() -> None:
    columns, period = days_of(np.zeros(60), np.zeros(60), np.arange(60.0), np.arange(60.0))
    split = np.full(240, TRAIN)
    assert joined(spec_of(), columns, period, split) == 3
    split[130] = VALID  # the third day is no training day like the first
    assert joined(spec_of(), columns, period, split) == 1
    split[[5, 230]] = TEST  # a random split: the first has held-out rows too
    assert joined(spec_of(), columns, period, split) == 3
    split[:] = TRAIN
    split[60:120] = VALID  # a held-out day in between
    assert joined(spec_of(), columns, period, split) == 1
    split[60:120], period[:60] = TRAIN, -1
    split[:60] = AUXILIARY
    assert joined(spec_of(), columns, period - (period > 0), split) == 2


def test_the_joined_period_has_the_name_of_its_first_unless_the_log_ends_with_it() -> None:
    columns, period = days_of(np.zeros(60), np.arange(60.0), np.arange(60.0))
    split, names = np.full(180, TRAIN), ["20260101", "20260102", "20260103"]
    assert join_first(spec_of(), columns, split, period, names)[1] == ["20260101", "20260103"]
    few = {"age": columns["age"][:120]}
    # `refresh` goes on behind the last name.
    assert join_first(spec_of(), few, split[:120], period[:120], names[:2])[1] == ["20260102"]


@given(st.lists(st.lists(VALUES, min_size=1, max_size=1), min_size=1, max_size=6), st.data())
def test_rows_behind_the_first_period_do_not_move_its_end(
    days: list[list[list[float]]], data: st.DataObject
) -> None:
    columns, period = days_of(*[np.array([1.0, *d[0] * 9]) for d in days])
    spec = spec_of()
    k = joined(spec, columns, period)
    until = data.draw(st.integers(k, len(days)))
    kept = period < until
    assert joined(spec, {"age": columns["age"].filter(pa.array(kept))}, period[kept]) == k
    changed = columns["age"].to_numpy(zero_copy_only=False).copy()
    enough = spread_of(changed[period < k]).suffices(None)
    behind = period >= (k if enough else 3)
    changed[behind] = data.draw(st.integers(-9, 9)) + np.arange(behind.sum())
    assert joined(spec, {"age": pa.array(changed)}, period) == k


def constant_first(tables: Any) -> None:
    """The hour is 0 on the first day."""
    for row in tables["log"]:
        row["hour"] = row["hour"] * 2500 if row["day"] else 0


def dense_of(cache: EncodedCache, name: str) -> np.ndarray:
    (at,) = [k for k, f in enumerate(cache.layout.dense) if f.name == name]
    start = sum(f.width for f in cache.layout.dense[:at])
    return np.asarray(cache.column("dense")[:, start])


@pytest.fixture(scope="module")
def grown(make_ads: Callable[..., Any], ads_features: Callable[..., Any]) -> Callable[..., Any]:
    """`grown(change)`: the small log whose hours are 0 on the first day."""
    features = ads_features("user_id", "item_id", "price", "user_click", "clicked", "item_love")
    features["hour"] = {"owner": "context", "kind": "numeric"}
    bucket = {"kind": "numeric", "transform": "buckets", "buckets": 4, "column": "hour"}
    features["hour_bucket"] = {"owner": "context", **bucket}

    def make(change: Callable[..., None] | None = None, **over: Any) -> Any:
        def both(tables: Any) -> None:
            constant_first(tables)
            if change is not None:
                change(tables)

        return make_ads(both, features=features, **over)

    return make


def test_moments_and_boundaries_come_from_the_days_that_suffice(grown: Callable[..., Any]) -> None:
    world = grown()
    days = [row // 60 for row in range(480)]
    assert world.cache.manifest["periods"] == ["0", "2", "3", "4", "5", "6", "7"]
    assert world.cache.period[40:].tolist() == [max(d - 1, 0) for d in days]
    hour = np.array([0] * 60 + [k % 24 * 2500 for k in range(60)], float)
    fitted = FittedEncoding.load(world.folder / "encoding")
    assert fitted.standardize["hour"] == pytest.approx((hour.mean(), hour.std()), rel=1e-12)
    assert fitted.boundaries["hour_bucket"] == [*np.unique(np.quantile(hour, [0.25, 0.5, 0.75]))]
    assert 0.5 < np.abs(dense_of(world.cache, "hour")).max() < 5
    column = [f.name for f in world.cache.layout.single].index("hour_bucket")
    assert len(np.unique(world.cache.column("ids")[40:, column])) > 1
    # No row of the two days has a past but the auxiliary rows, and none is a test row.
    clicked = world.cache.take(np.arange(40, 160))["bags"]["clicked"]
    alone = world.cache.take(np.arange(40, 100))["bags"]["clicked"]
    assert clicked.splits[60] == alone.splits[-1]
    assert (world.cache.split[world.cache.period == 0] == TRAIN).all()


def test_without_joining_the_input_is_bounded_and_told(
    grown: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    world = grown(period={"by": "day", "first_at_most": 1})
    assert np.abs(dense_of(world.cache, "hour")).max() == 10
    beyond = world.cache.manifest["beyond_bound"]["hour"]
    assert beyond == {"train": 5 * 57, "valid": 57, "test": 57}  # of 60 hours, 3 are 0
    text = caplog.text
    assert "285 of 360 known train values, 57 of 60 known valid values" in text
    assert "mean 0, deviation 1; furthest value 57500" in text
    assert "'hour' is fitted on little" in text and "'hour_bucket' is fitted on little" in text


@pytest.mark.parametrize("deleted", [True, False])
@pytest.mark.parametrize("day", [2, 4])
def test_events_behind_the_first_period_leave_earlier_rows_bit_equal(
    grown: Callable[..., Any], changed_from: Callable[..., Any], day: int, deleted: bool
) -> None:
    def delete(tables: Any) -> None:
        # A log needs every split, so a few rows of the last days stay.
        tables["log"] = [
            row
            for k, row in enumerate(tables["log"])
            if row["day"] < day or (row["day"] > 5 and k % 9 == 0)
        ]

    one, other = grown(), grown(delete if deleted else changed_from(day))
    assert other.cache.manifest["periods"][:2] == ["0", "6" if deleted and day == 2 else "2"]
    rows = np.flatnonzero(one.cache.period < day - 1)
    assert len(rows) == 40 + 60 * day
    assert rows.tolist() == np.flatnonzero(other.cache.period < day - 1).tolist()
    for refresh in ("frozen", "daily"):
        a, b = (world.cache.take(rows, refresh) for world in (one, other))
        for key in ("ids", "dense", "labels"):
            assert a[key].tobytes() == b[key].tobytes(), key
        for key, bag in a["bags"].items():
            assert bag.values.tolist() == b["bags"][key].values.tolist()
            assert bag.splits.tolist() == b["bags"][key].splits.tolist()


def test_numbers_of_interleaved_scenarios_are_fitted_on_an_eighth_of_all_rows(
    make_ads: Callable[..., Any], ads_features: Callable[..., Any]
) -> None:
    def uneven(tables: Any) -> None:
        for k, row in enumerate(tables["log"]):
            row["tab"] = f"t{k * k % 7}" if k % 3 else "t0"
            row["hour"] = 20 + 37 * k % 60

    hour = {"owner": "context", "kind": "numeric"}
    world = make_ads(
        uneven,
        features={**ads_features("user_id", "item_id"), "hour": hour},
        period={"blocks": 8},
        split={"per": "scenario", "by": "time", "fractions": [0.8, 0.1, 0.1]},
    )
    assert np.bincount(world.cache.period[40:]).tolist() == [60] * 8
    first = world.raw.columns["hour"].to_numpy(zero_copy_only=False)[40:100].astype(float)
    fitted = FittedEncoding.load(world.folder / "encoding").standardize["hour"]
    assert fitted == pytest.approx((first.mean(), first.std()), rel=1e-12)


def test_new_rows_go_on_behind_a_joined_first_period(
    grown: Callable[..., Any],
    ads_files: Callable[..., Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def days(low: int, high: int) -> Callable[[Any], None]:
        def change(tables: Any) -> None:
            tables["log"] = [row for row in tables["log"] if low <= row["day"] < high]

        return change

    def later(tables: Any) -> None:
        constant_first(tables)
        days(6, 8)(tables)
        for row in tables["log"][:3]:
            row["hour"] = 1e7

    split = {"by": "day", "train_until": 4, "valid_until": 5}
    whole, first = grown(split=split), grown(days(0, 6), split=split)
    new = read_files(first.spec, first.cache, [ads_files(tmp_path / "new", later) / "log.csv"])
    (tmp_path / "data").mkdir()
    append_to(tmp_path / "data", first.spec, first.cache, new, {"version": 2, "fingerprint": "2"})
    cache = EncodedCache(tmp_path / "data")
    assert cache.manifest["periods"] == whole.cache.manifest["periods"]
    np.testing.assert_array_equal(cache.period, whole.cache.period)
    same = np.ones(cache.rows, bool)
    same[400:403] = False
    hour = dense_of(cache, "hour")
    np.testing.assert_array_equal(hour[same], dense_of(whole.cache, "hour")[same])
    assert hour[400:403].tolist() == [10, 10, 10]
    assert "3 of 120 known new values lie beyond 10 deviations" in caplog.text
