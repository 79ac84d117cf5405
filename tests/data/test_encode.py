from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from lfm4ads_tf.data.cache import Bag
from lfm4ads_tf.data.splits import AUXILIARY, TEST, TRAIN, VALID
from lfm4ads_tf.data.state import placeholder_columns
from lfm4ads_tf.data.statistics import StatisticEvents, point_in_time
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.fitted_encoding import FittedEncoding
from lfm4ads_tf.features.offline import encode_columns

# Features whose values a request carries as they stand, not from the log's past.
MOVING = {"user_click", "item_love", "user_price_click", "item_tab_click", "clicked"}


def same_bag(one: Bag, other: Bag) -> bool:
    weights = (one.weights is None) == (other.weights is None)
    if weights and one.weights is not None:
        weights = np.array_equal(one.weights, other.weights)
    return (
        weights
        and np.array_equal(one.values, other.values)
        and np.array_equal(one.splits, other.splits)
    )


def assert_same(one: dict[str, Any], other: dict[str, Any], *, labels: bool = True) -> None:
    keys = ["ids", "dense", "scenario", "branch"]
    for key in keys + (["labels"] if labels else []):
        assert np.array_equal(one[key], other[key], equal_nan=key == "labels"), key
    for name, bag in one["bags"].items():
        assert same_bag(bag, other["bags"][name]), name


def test_every_kind_of_feature_is_there(ads: Any) -> None:
    kinds = {f.kind for f in ads.spec.features.values()}
    assert kinds == {
        "vocabulary",
        "numeric",
        "identity",
        "hashed",
        "multi",
        "sequence",
        "statistic",
        "pretrained",
        "crossed",
    }


def test_held_out_rows_are_what_the_encoder_gives(ads: Any) -> None:
    encoder = Encoder(ads.spec, FittedEncoding.load(ads.folder / "encoding"))
    every = encode_columns(
        encoder, {**ads.raw.columns, **placeholder_columns(ads.spec, ads.raw.rows)}
    )
    rows = np.flatnonzero((ads.raw.split != TRAIN) & (ads.raw.split != AUXILIARY))
    cached = ads.cache.take(rows)
    assert np.array_equal(every["ids"][rows], cached["ids"])
    assert np.array_equal(every["scenario"][rows], cached["scenario"])
    start = 0
    for field in ads.cache.layout.dense:
        columns = slice(start, start + field.width)
        if field.name not in MOVING:
            assert np.array_equal(every["dense"][rows, columns], cached["dense"][:, columns])
        start += field.width
    for name in {"interests", "pages", "tags"}:
        assert same_bag(Bag(*every["bags"][name]).take(rows), cached["bags"][name]), name


def test_a_vocabulary_id_appears_with_its_min_count_th_occurrence(ads: Any) -> None:
    column = [f.name for f in ads.cache.layout.single].index("user_id")
    ids = ads.cache.take(np.arange(ads.raw.rows))["ids"][:, column]
    seen: dict[str, int] = {}
    for row, key in enumerate(ads.raw.columns["user_id"].to_pylist()):
        trained = ads.raw.split[row] in (TRAIN, AUXILIARY)
        seen[key] = seen.get(key, 0) + trained
        assert (ids[row] > 0) == (seen[key] >= 2), row


@pytest.mark.parametrize("refresh", ["frozen", "daily"])
def test_statistics_stand_in_their_columns(ads: Any, refresh: str) -> None:
    raw = ads.raw
    item = raw.columns["item_id"].to_pylist()
    keys = {
        "user_click": raw.columns["user_id"].to_pylist(),
        "item_love": item,
        "item_tab_click": list(zip(item, raw.columns["tab"].to_pylist(), strict=True)),
    }
    cached = ads.cache.take(np.arange(raw.rows), refresh)["dense"]
    start = 0
    for field in ads.cache.layout.dense:
        if field.name in keys:
            feature = ads.spec.features[field.name]
            codes = {k: n for n, k in enumerate(dict.fromkeys(keys[field.name]))}
            events = StatisticEvents(
                np.array([codes[k] for k in keys[field.name]]),
                raw.labels[:, ads.spec.task_names.index(feature.task)].astype(float),
                raw.period,
                np.isin(raw.split, (TRAIN, AUXILIARY)),
            )
            values = point_in_time(events, feature.smoothing)[refresh == "daily"]
            order = [["count", "rate"].index(v) for v in feature.values]
            found = cached[:, start : start + field.width]
            assert np.array_equal(found, values[:, order]), field.name
            assert np.abs(found).max() > 0.1
        start += field.width


def test_daily_state_moves_on_test_rows_only(ads: Any) -> None:
    frozen, daily = (ads.cache.take(np.arange(ads.raw.rows), r) for r in ("frozen", "daily"))
    moved = (frozen["dense"] != daily["dense"]).any(axis=1)
    # One valid period and one test period: only test rows see another held-out period.
    assert moved[ads.raw.split == TEST].any()
    assert not moved[ads.raw.split != TEST].any()
    clicked = frozen["bags"]["clicked"], daily["bags"]["clicked"]
    assert not same_bag(*clicked)
    rows = np.flatnonzero(ads.raw.split != TEST)
    assert same_bag(clicked[0].take(rows), clicked[1].take(rows))


@pytest.mark.parametrize("daily", [False, True])
def test_a_row_ahead_has_the_state_of_its_users_next_rows(ads: Any, daily: bool) -> None:
    cache = ads.cache
    start, columns = 0, []
    for field in cache.layout.dense:
        if field.name == "user_click":
            columns = list(range(start, start + field.width))
        start += field.width
    compared = 0
    for period in np.unique(cache.period):
        # A row of the period whose user has a row ahead with this very period sees its state.
        held_out = np.isin(cache.split, (VALID, TEST))
        rows = np.flatnonzero((cache.period == period) & (held_out if daily else ~held_out))
        places = cache.ahead(int(period), daily=daily)
        later = cache.take_ahead(places)
        of_user = {int(u): k for k, u in enumerate(cache.user[cache.ahead_row[places]])}
        own = cache.take(rows, "daily")
        for k, row in enumerate(rows):
            earlier = (cache.user == cache.user[row]) & (cache.period == period - 1)
            earlier &= held_out if daily else ~held_out
            if earlier.any():
                place = of_user[int(cache.user[row])]
                assert np.array_equal(later["dense"][place, columns], own["dense"][k, columns]), (
                    row,
                    place,
                )
                lists = [later["bags"]["clicked"].take(np.array([place]))]
                lists.append(own["bags"]["clicked"].take(np.array([k])))
                assert same_bag(*lists)
                compared += 1
    assert compared


def test_samples_encode_to_the_cached_rows(ads: Any) -> None:
    samples = pq.read_table(ads.folder / "samples.parquet")
    rows = samples["row"].to_numpy()
    assert len(rows) and (ads.raw.split[rows] == TEST).all()
    encoder = Encoder(ads.spec, FittedEncoding.load(ads.folder / "encoding"))
    encoded = encode_columns(encoder, {n: samples[n] for n in samples.column_names})
    encoded["bags"] = {name: Bag(*bag) for name, bag in encoded["bags"].items()}
    assert_same(encoded, ads.cache.take(rows, "frozen"), labels=False)
    assert samples["user_id"].to_pylist() == [
        ads.raw.columns["user_id"][int(r)].as_py() for r in rows
    ]


@pytest.mark.parametrize("day", [2, 4, 6])
def test_events_from_a_day_on_leave_earlier_rows_bit_equal(
    ads: Any, make_ads: Callable[..., Any], changed_from: Callable[..., Any], day: int
) -> None:
    other = make_ads(changed_from(day))
    rows = np.flatnonzero(ads.raw.period < day)
    assert np.array_equal(rows, np.flatnonzero(other.raw.period < day))
    for refresh in ("frozen", "daily"):
        one, two = ads.cache.take(rows, refresh), other.cache.take(rows, refresh)
        for taken, world in ((one, ads), (two, other)):
            # Scenarios are compared by name: a later new one moves the auxiliary rows' index.
            names = np.array([*world.cache.layout.scenarios, "unknown"])
            taken["scenario"] = names[taken["scenario"]]
        assert_same(one, two)
    everything = np.flatnonzero(ads.raw.period >= day)
    assert not np.array_equal(
        ads.cache.take(everything)["ids"], other.cache.take(everything)["ids"]
    )


@pytest.mark.parametrize("day", [3, 5])
def test_labels_of_a_day_leave_the_features_of_its_own_rows_bit_equal(
    ads: Any, make_ads: Callable[..., Any], changed_from: Callable[..., Any], day: int
) -> None:
    other = make_ads(changed_from(day, labels_only=True))
    rows = np.flatnonzero(ads.raw.period <= day)
    for refresh in ("frozen", "daily"):
        assert_same(ads.cache.take(rows, refresh), other.cache.take(rows, refresh), labels=False)
    later = np.flatnonzero(ads.raw.period == day + 1)
    assert not np.array_equal(ads.cache.take(later)["dense"], other.cache.take(later)["dense"])


def test_facts(ads: Any) -> None:
    manifest = json.loads((ads.folder / "manifest.json").read_text())
    assert manifest["rows"] == {"train": 360, "valid": 60, "test": 60}
    assert manifest["auxiliary_rows"] == 40
    assert manifest["periods"] == [str(d) for d in range(8)]
    assert manifest["point_in_time"] == {"t0": True, "t1": True}
    assert manifest["fingerprint"] == "test"
    assert list(ads.cache.layout.scenarios)[-1] == "past"


def test_scenarios_whose_training_overlaps_the_others_test_are_flagged(
    make_ads: Callable[..., Any],
) -> None:
    def later(tables: Any) -> None:
        for row in tables["log"]:
            if row["tab"] == "t1":
                row["time_ms"] += 400 * 86_400_000
        tables["log"].sort(key=lambda row: row["time_ms"])

    world = make_ads(
        later,
        split={"per": "scenario", "by": "time", "fractions": [0.8, 0.1, 0.1]},
        period={"blocks": 4},
    )
    assert world.cache.manifest["point_in_time"] == {"t0": False, "t1": True}


def test_ads_and_segments_of_every_row(make_ads: Callable[..., Any]) -> None:
    ads = make_ads(
        ads={"by": "brand", "values": ["b1"]},
        segments={
            "new": {"by": "level", "values": ["3", 1]},  # read as integers by a feature
            "noon": {"by": "hour", "values": [12]},  # as numbers
            "late": {"by": "day", "values": [6, 7]},  # by no feature; the split's column
        },
    )
    raw, cache = ads.raw, ads.cache
    brands = raw.columns["brand"].to_pylist()
    assert cache.branch.tolist() == [int(b == "b1") for b in brands]
    # Side tables tell ads from content on auxiliary rows too.
    assert {cache.branch[r] for r in cache.auxiliary_rows} == {0, 1}
    assert cache.layout.segments == ("new", "noon", "late")
    log = raw.split != AUXILIARY
    levels = raw.columns["level"].to_pylist()
    assert cache.segments[:, 0].tolist() == [
        v is not None and float(v) in (1, 3) and bool(ok) for v, ok in zip(levels, log, strict=True)
    ]
    assert cache.segments[:, 0].any()
    hours = np.array(raw.columns["hour"].to_numpy(zero_copy_only=False), float)
    np.testing.assert_array_equal(cache.segments[:, 1], (hours == 12) & log)
    held_out = np.flatnonzero((raw.split != TRAIN) & log)
    late = np.concatenate([cache.rows_of("valid", "late"), cache.rows_of("test", "late")])
    np.testing.assert_array_equal(late, held_out)
    # What a request is encoded to is what the cache holds.
    samples = pq.read_table(ads.folder / "samples.parquet")
    encoder = Encoder(ads.spec, FittedEncoding.load(ads.folder / "encoding"))
    encoded = encode_columns(encoder, {n: samples[n] for n in samples.column_names})
    rows = samples["row"].to_numpy()
    np.testing.assert_array_equal(encoded["branch"], cache.take(rows)["branch"])
    assert {*encoded["branch"]} == {0, 1}


def test_a_segment_named_as_a_scenario_is_refused(make_ads: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match="segment 't1' has the name of a scenario"):
        make_ads(segments={"t1": {"by": "hour", "values": [1]}})
    with pytest.raises(UserError, match="segment 'past' has the name of a scenario"):
        make_ads(segments={"past": {"by": "hour", "values": [1]}})


@pytest.mark.parametrize("key", ["ads", "segments"])
def test_a_set_by_an_unknown_column_is_refused(make_ads: Callable[..., Any], key: str) -> None:
    of = {"by": "brnd", "values": [1]}
    with pytest.raises(UserError, match="No table has the column 'brnd'.*Did you mean 'brand'"):
        make_ads(**{key: of if key == "ads" else {"some": of}})


def test_a_set_without_a_row_is_reported(
    make_ads: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    of = {"by": "brand", "values": ["b11"]}
    ads = make_ads(ads=of, segments={"none": of})
    assert not ads.cache.branch.any() and not ads.cache.segments.any()
    assert "no row is an ad" in caplog.text and "segment 'none' has no row" in caplog.text
