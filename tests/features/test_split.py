"""Bounds of a split: numbers, dates and times as YAML and the command line give them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from lfm4ads_tf.features.split import SplitByColumn


def split_of(train_until: str, valid_until: str = "2027-01-01") -> SplitByColumn:
    text = f"{{by: day, train_until: {train_until}, valid_until: {valid_until}}}"
    return SplitByColumn.model_validate(yaml.safe_load(text))


@pytest.mark.parametrize(
    ("written", "kept", "seconds"),
    [
        ("2026-01-06", "2026-01-06", 1767657600.0),
        ("'2026-01-06'", "2026-01-06", 1767657600.0),
        ("2026-01-06 10:00:00", "2026-01-06T10:00:00Z", 1767693600.0),
        ("2026-01-06T10:00:00.25Z", "2026-01-06T10:00:00.250000Z", 1767693600.25),
        ("'2026-01-06T12:00:00+02:00'", "2026-01-06T10:00:00Z", 1767693600.0),
        ("2026-01-06T12:00:00+02:00", "2026-01-06T10:00:00Z", 1767693600.0),
    ],
)
def test_dates_and_times_are_moments_in_utc(written: str, kept: str, seconds: float) -> None:
    split = split_of(written)
    assert (split.train_until, split.dated, split.bounds[0]) == (kept, True, seconds)
    # What config.yaml holds is read back as the same.
    again = yaml.safe_load(yaml.safe_dump(split.model_dump(mode="json")))
    assert SplitByColumn.model_validate(again) == split


def test_numbers_stay_numbers() -> None:
    split = split_of("20260106", "'20260107'")
    assert split.model_dump() == {
        "by": "day",
        "train_until": 20260106.0,
        "valid_until": 20260107.0,
    }
    assert not split.dated and split.bounds == (20260106.0, 20260107.0)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        (("2026-01-06", "20260107"), "must both be numbers, or both dates"),
        (("2027-01-02", "2027-01-01"), r"\(2027-01-02\) must be below valid_until \(2027-01-01\)"),
        (("tomorrow", "2027-01-01"), "give a number, a date such as 2026-01-06, or a time"),
        (("true", "2027-01-01"), "give a number"),
        ((".nan", "3"), "give a number"),
        (("[1]", "3"), "give a number"),
    ],
)
def test_other_bounds_are_refused(bounds: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        split_of(*bounds)
