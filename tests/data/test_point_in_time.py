"""The point-in-time flag of any split, and its warning, against brute force."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm4ads_tf.data.point_in_time import PointInTime
from lfm4ads_tf.data.splits import AUXILIARY, TEST, TRAIN, VALID

Counts = dict[str, tuple[int, int]]
_SEEN = re.compile(r"([a-z_]+) of (\d+) rows \(up to (\d+) events of a row\)")


def fold(tables: Any) -> None:
    """A random fold of every row of the log, seeded."""
    rng = np.random.default_rng(11)
    for row in tables["log"]:
        row["fold"] = int(rng.integers(0, 5))


def brute(raw: Any, key: np.ndarray, event: np.ndarray, last: int = 10**9) -> tuple[int, int]:
    """Held-out rows that count a later training event of their key, and the most that one does."""
    own = event & np.isin(raw.split, (TRAIN, AUXILIARY))
    found = []
    for row in np.flatnonzero(np.isin(raw.split, (VALID, TEST))):
        later = (raw.period > raw.period[row]) | (
            (raw.period == raw.period[row]) & (raw.time > raw.time[row])
        )
        found.append(min(last, int((own & later & (key == key[row]) & (key >= 0)).sum())))
    return sum(n > 0 for n in found), max(found)


@pytest.mark.parametrize("period", [{"by": "day"}, {"blocks": 5}])
def test_a_random_fold_is_not_point_in_time_and_the_warning_counts_it(
    make_ads: Callable[..., Any], caplog: pytest.LogCaptureFixture, period: dict[str, Any]
) -> None:
    with caplog.at_level(logging.WARNING):
        ads = make_ads(
            fold,
            per_day=250,  # 2,000 rows
            split={"by": "fold", "train_until": 3, "valid_until": 4},
            period=period,
            segments={"noon": {"by": "hour", "values": [12]}},
        )
    raw, cache = ads.raw, ads.cache
    assert cache.manifest["point_in_time"] == {"t0": False, "t1": False, "noon": False}
    warned = [r.getMessage() for r in caplog.records if "point in time" in r.getMessage()]
    assert len(warned) == 1
    # The rows of this log are in the order of their times, auxiliary ones first.
    train, held_out = raw.split == TRAIN, np.isin(raw.split, (VALID, TEST))
    later = int((np.flatnonzero(train) > np.flatnonzero(held_out)[0]).sum())
    earlier = int((np.flatnonzero(held_out) < np.flatnonzero(train)[-1]).sum())
    assert later > 1000 and earlier > 700
    assert (
        f"(t0, t1, noon): {later} of {train.sum()} training rows are later than the first valid or "
        f"test row, and {earlier} of {held_out.sum()} valid and test rows earlier than the last "
        "training row" in warned[0]
    )
    click, love = raw.labels.T
    tab = cache.scenario.astype(np.int64)
    price = cache.column("ids")[:, [f.name for f in cache.layout.single].index("price")]
    known = raw.columns["price"].is_valid().to_numpy(zero_copy_only=False)
    user_price = np.where(known, cache.user * 100 + price, -1)  # a key without a price is none
    in_log = raw.split != AUXILIARY
    expected: Counts = {
        "user_click": brute(raw, cache.user, ~np.isnan(click)),
        "clicked": brute(raw, cache.user, click == 1, last=3),
        "item_love": brute(raw, cache.item, ~np.isnan(love)),
        "user_price_click": brute(raw, user_price, ~np.isnan(click) & in_log),
        "item_tab_click": brute(raw, cache.item * 10 + tab, ~np.isnan(click)),
    }
    found = {name: (int(rows), int(most)) for name, rows, most in _SEEN.findall(warned[0])}
    assert found == expected
    assert min(rows for rows, _ in found.values()) > 100


def test_a_split_by_time_is_point_in_time_and_says_nothing(
    make_ads: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    def disagree(tables: Any) -> None:
        tables["log"][-1]["time_ms"] -= 5 * 86_400_000  # a clock that is behind its date
        tables["log"][0]["time_ms"] += 7 * 86_400_000  # and one that is ahead

    with caplog.at_level(logging.WARNING):
        ads = make_ads(disagree)  # by days that are periods: these come first
        assert ads.cache.manifest["point_in_time"] == {"t0": True, "t1": True}
        assert "point in time" not in caplog.text
        clock = make_ads(disagree, period={"blocks": 4})  # ordered by the clock alone
    assert False in clock.cache.manifest["point_in_time"].values()
    first = clock.raw.time[np.isin(clock.raw.split, (VALID, TEST))].min()
    later = int((clock.raw.time[clock.raw.split == TRAIN] > first).sum())
    assert f"{later} of 360 training rows are later" in caplog.text


@given(st.data())
def test_flags_and_counts_are_those_of_every_pair_of_rows(data: st.DataObject) -> None:
    rows = data.draw(st.integers(2, 14))

    def column(low: int, high: int) -> np.ndarray:
        return np.array(data.draw(st.lists(st.integers(low, high), min_size=rows, max_size=rows)))

    period, time = column(0, 3), column(0, 3).astype(float)
    split = column(TRAIN, AUXILIARY)
    split[0] = TRAIN
    period[split == AUXILIARY] = -1
    chosen, key, event = column(0, 1) == 1, column(-1, 2), column(0, 1) == 1
    order = PointInTime(period, time, split)

    def later(a: int, b: int) -> bool:
        return (period[a], time[a]) > (period[b], time[b])

    held_out = [r for r in range(rows) if split[r] in (VALID, TEST)]
    train = [r for r in range(rows) if split[r] == TRAIN]
    own = [r for r in held_out if chosen[r]]
    expected = {"set": not any(later(t, r) for t in train for r in own)} if own else {}
    assert order.flags({"set": chosen}) == expected
    assert order.holds == (not any(later(t, r) for t in train for r in held_out))
    order.add("feature", key, event)
    events = [r for r in range(rows) if event[r] and split[r] in (TRAIN, AUXILIARY)]
    counts = [
        sum(later(e, r) and key[e] == key[r] for e in events) if key[r] >= 0 else 0
        for r in held_out
    ]
    seen = (sum(n > 0 for n in counts), max(counts, default=0))
    assert order.seen == ({} if order.holds else {"feature": seen})
