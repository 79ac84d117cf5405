from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm4ads_tf.data.splits import TEST, TRAIN, VALID, assign_periods, assign_split
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.spec_file import parse_spec


def spec_with(split: dict[str, Any]) -> FeatureSpec:
    return parse_spec(
        {
            "name": "s",
            "log": {"files": ["log.csv"]},
            "keys": {"user": "u", "item": "i", "time": "t", "scenario": "tab"},
            "tasks": {"click": "click"},
            "split": split,
            "features": {"u": {"owner": "user", "kind": "hashed"}},
        }
    )


def test_by_column_is_half_open() -> None:
    spec = spec_with({"by": "day", "train_until": 3, "valid_until": 5})
    day = np.array([1.0, 3.0, 2.999, 4.999, 5.0, 9.0])
    split = assign_split(spec, day, np.arange(6.0), None)
    assert split.tolist() == [TRAIN, VALID, TRAIN, VALID, TEST, TEST]


@pytest.mark.parametrize(
    ("until", "empty"), [((0, 5), "train"), ((4.5, 5), "valid"), ((3, 50), "test")]
)
def test_an_empty_split_is_refused(until: tuple[float, float], empty: str) -> None:
    spec = spec_with({"by": "day", "train_until": until[0], "valid_until": until[1]})
    with pytest.raises(UserError, match=f"The {empty} split is empty") as error:
        assign_split(spec, np.array([1.0, 3.0, 4.0, 6.0]), np.arange(4.0), None)
    assert "--set split." in str(error.value)


@given(st.integers(0, 10_000), st.sampled_from(["scenario", "all"]))
def test_by_fractions_cuts_every_scenario_in_time_order(seed: int, per: str) -> None:
    rng = np.random.default_rng(seed)
    spec = spec_with({"per": per, "by": "time", "fractions": [0.5, 0.25, 0.25]})
    texts = rng.choice(np.array(["a", "b", None], object), 60)
    split = assign_split(spec, None, np.arange(60.0), pa.array(texts, pa.string()))
    groups = [texts == t for t in ("a", "b")] + [np.array([t is None for t in texts])]
    for rows in groups if per == "scenario" else [np.ones(60, bool)]:
        own = split[rows]
        assert (np.diff(own) >= 0).all()  # TRAIN < VALID < TEST, in time order
        count = len(own)
        assert (own == TRAIN).sum() == round(0.5 * count)
        assert (own <= VALID).sum() == round(0.75 * count)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=30))
def test_periods_of_a_column_are_ranks(days: list[int]) -> None:
    column = np.sort(np.array(days, float)) + 20240301
    period, names = assign_periods(column, None, np.arange(len(days), dtype=float), None)
    known = sorted(set(days))
    assert period.tolist() == [known.index(d) for d in sorted(days)]
    assert names == [str(20240301 + d) for d in known]


@given(st.integers(1, 100), st.integers(2, 10))
def test_blocks_of_one_scenario_hold_equally_many_rows(rows: int, blocks: int) -> None:
    period, names = assign_periods(None, blocks, np.arange(rows, dtype=float), None)
    sizes = np.bincount(period)
    assert len(sizes) == len(names) == min(blocks, rows)
    assert sizes.max() - sizes.min() <= 1
    assert (np.diff(period) >= 0).all()


# A scenario begins somewhere and lasts a while, so that some overlap and others lie apart.
SCENARIO = st.tuples(st.integers(0, 60), st.lists(st.integers(0, 15), min_size=1, max_size=30))


def log_of(scenarios: list[tuple[int, list[int]]]) -> tuple[np.ndarray, np.ndarray]:
    """Times and scenarios of all rows, in time order."""
    time = np.concatenate([np.add(begin, own) for begin, own in scenarios]).astype(float)
    names = np.repeat([f"s{k}" for k in range(len(scenarios))], [len(own) for _, own in scenarios])
    order = np.argsort(time, kind="stable")
    return time[order], names[order]


def overlapping(time: np.ndarray, names: np.ndarray) -> list[np.ndarray]:
    """Rows of every set of scenarios that are linked by overlaps, pair by pair."""
    sets = [{name} for name in np.unique(names)]
    spans = {n: (time[names == n].min(), time[names == n].max()) for n in np.unique(names)}
    for one, (low, high) in spans.items():
        for other, (begin, end) in spans.items():
            if low <= end and begin <= high:
                mine, theirs = (next(s for s in sets if n in s) for n in (one, other))
                if mine is not theirs:
                    sets.remove(theirs)
                    mine |= theirs
    return [np.isin(names, list(s)) for s in sets]


@given(st.lists(SCENARIO, min_size=1, max_size=4), st.integers(2, 6), st.randoms())
def test_blocks_are_large_whatever_the_scenarios_and_their_order(
    scenarios: list[tuple[int, list[int]]], blocks: int, random: Any
) -> None:
    time, names = log_of(scenarios)
    period, starts = assign_periods(None, blocks, time, pa.array(names))
    assert (np.diff(period) >= 0).all() and set(period) == set(range(len(starts)))
    assert ((np.diff(time) > 0) | (np.diff(period) == 0)).all()  # a function of time
    assert [float(n) for n in starts] == [time[period == k][0] for k in range(len(starts))]
    for rows in overlapping(time, names):
        for own in np.unique(period[rows]):
            assert (period == own).sum() * 2 * blocks >= rows.sum()
    # Other names of the scenarios and another order of rows of one time change nothing.
    shuffled = random.sample(range(len(time)), len(time))
    order = sorted(shuffled, key=lambda row: time[row])
    other = {f"s{k}": f"x{n}" for k, n in enumerate(random.sample(range(4), 4))}
    renamed = pa.array([other[names[row]] for row in order])
    again, _ = assign_periods(None, blocks, time[order], renamed)
    assert again.tolist() == period[order].tolist()


@given(st.integers(2, 100), st.integers(2, 8), st.integers(2, 5))
def test_interleaved_scenarios_are_cut_as_one(rows: int, blocks: int, scenarios: int) -> None:
    time = np.arange(rows, dtype=float)
    names = np.arange(rows) % scenarios
    names[[0, -1]] = 0  # the first lasts all the time, so all overlap
    cut = assign_periods(None, blocks, time, pa.array(names.astype(str)))
    whole = assign_periods(None, blocks, time, None)
    assert cut[0].tolist() == whole[0].tolist() and cut[1] == whole[1]


def test_scenarios_years_apart_are_cut_each_by_itself() -> None:
    time = np.concatenate([np.arange(40.0), 1e9 + np.arange(400.0)])
    names = pa.array(["old"] * 40 + ["new"] * 400)
    period, _ = assign_periods(None, 4, time, names)
    assert np.bincount(period).tolist() == [10] * 4 + [100] * 4


def test_a_scenario_of_a_few_rows_makes_no_periods_of_its_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    time = np.concatenate([[0.0], 100 + np.arange(158.0), [1000.0, 2000.0]])
    names = pa.array(["a"] + ["b"] * 158 + ["c", "d"])
    assert np.bincount(assign_periods(None, 4, time, names)[0]).tolist() == [40, 40, 40, 41]
    assert not caplog.records


def test_blocks_joined_for_their_ties_are_told(caplog: pytest.LogCaptureFixture) -> None:
    time = np.array([0.0] * 39 + [1.0] * 3 + [2.0] * 39)
    with caplog.at_level("INFO"):
        period, names = assign_periods(None, 4, time, None)
    assert np.bincount(period).tolist() == [39, 42] and names == ["0", "1"]
    assert "81 rows make 2 blocks of 39 to 42 rows instead of 4" in caplog.text
