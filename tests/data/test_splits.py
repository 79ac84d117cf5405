from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm4ads_tf.data.splits import TEST, TRAIN, VALID, assign_periods, assign_split
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.spec import FeatureSpec, parse_spec


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


@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(2, 6))
def test_blocks_are_a_function_of_time_and_begin_at_every_scenarios_cuts(
    seed: int, rows: int, blocks: int
) -> None:
    rng = np.random.default_rng(seed)
    time = np.sort(rng.integers(0, 40, rows)).astype(float)
    texts = rng.choice(np.array(["a", "b"], object), rows)
    period, names = assign_periods(None, blocks, time, pa.array(texts, pa.string()))
    starts = {float(time[0])}
    for text in set(texts):
        own = time[texts == text]
        starts |= {float(own[k * len(own) // blocks]) for k in range(blocks)}
    edges = sorted(starts)
    expected = [max(k for k, edge in enumerate(edges) if edge <= t) for t in time]
    used = sorted(set(expected))
    assert period.tolist() == [used.index(k) for k in expected]
    assert [float(n) for n in names] == [edges[k] for k in used]
