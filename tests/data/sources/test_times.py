"""convert_times: every way to write a time gives the same moment; what is refused."""

from __future__ import annotations

import logging
import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm4ads_tf.data.sources.table import read_table
from lfm4ads_tf.data.sources.times import TIME, convert_times, is_calendar, time_numbers
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.moments import moment_of, moment_text

EPOCH = datetime(1970, 1, 1)


def numbers(values: Any, *, iso: bool = False) -> list[float]:
    column = values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])
    found = convert_times(column, path=Path("log.csv"), name="at", iso=iso)
    return time_numbers(found.combine_chunks()).tolist()


moments = st.lists(st.datetimes(datetime(1950, 1, 1), datetime(2090, 1, 1)), min_size=1, max_size=8)
zones = st.integers(-14 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m)))


@given(moments, zones)
def test_every_way_to_write_a_moment_gives_the_nearest_double(
    naive: list[datetime], zone: timezone
) -> None:
    micros = [(m - EPOCH) // timedelta(microseconds=1) for m in naive]
    expected = [float(Decimal(m) / 1_000_000) for m in micros]  # Decimal rounds once
    aware = [m.replace(tzinfo=UTC).astimezone(zone) for m in naive]
    for values in (
        [m.isoformat() for m in naive],
        [m.isoformat(" ") for m in naive],
        [m.isoformat() + "Z" for m in naive],
        [m.isoformat() for m in aware],
        [f" {m.isoformat()} " for m in aware],
        [(naive, aware)[k % 2][k].isoformat() for k in range(len(naive))],
        [m.isoformat().encode() for m in naive],
        [str(Decimal(m) / 1_000_000) for m in micros],
        pa.array(micros, pa.timestamp("us")),
        pa.array(micros, pa.timestamp("us", "Asia/Tokyo")),
        pa.array([1000 * m + 999 for m in micros], pa.timestamp("ns")),
    ):
        assert numbers(values if isinstance(values, pa.Array) else pa.array(values)) == expected
    for text, value in zip([m.isoformat() for m in aware], expected, strict=True):
        assert moment_of(text) == value
        assert moment_of(moment_text(value)) == value


@given(st.lists(st.dates(date(1900, 1, 1), date(2200, 1, 1)), min_size=1))
def test_dates_are_midnight_in_utc(days: list[date]) -> None:
    expected = [float((d - date(1970, 1, 1)).days * 86_400) for d in days]
    whole = [int(e) for e in expected]
    for values in (
        pa.array(days, pa.date32()),
        pa.array(days, pa.date64()),
        pa.array([d.isoformat() for d in days]),
        pa.array(whole, pa.timestamp("s")),
        pa.array([1000 * w for w in whole], pa.timestamp("ms", "UTC")),
    ):
        assert numbers(values) == expected
    assert [moment_text(e) for e in expected] == [d.isoformat() for d in days]


def test_numbers_stay_what_they_are_and_nothing_is_missing() -> None:
    assert numbers(pa.array(["1.5", " 2 ", "3e2", "20260105"])) == [1.5, 2.0, 300.0, 20260105.0]
    assert numbers(pa.array([3, 4], pa.int32())) == [3.0, 4.0]
    assert numbers(pa.array([[7], [8]])) == [7.0, 8.0]  # features of a TFRecord are lists
    for array in (
        pa.array(["", "nan", "2026-01-05"]),
        pa.array([None, None, date(2026, 1, 5)]),
        pa.array([None, math.nan, 1767571200.0]),
    ):
        found = numbers(array)
        assert np.isnan(found[:2]).all() and found[2] == 1767571200.0
    assert np.isnan(numbers(pa.nulls(2))).all()


def test_iso_takes_digits_as_a_date_and_no_numbers() -> None:
    assert numbers(pa.array(["20260105", "20260106"]), iso=True) == [1767571200.0, 1767657600.0]
    with pytest.raises(UserError, match="is not a time in ISO 8601 in data row 2") as error:
        numbers(pa.array(["2026-01-05", "1767571200"]), iso=True)
    assert "drop `time_unit: iso`" in str(error.value)
    with pytest.raises(UserError, match="stored type int64"):
        numbers(pa.array([1767571200]), iso=True)


@pytest.mark.parametrize(
    ("cells", "row", "what"),
    [
        (["2026-01-05", "2026-13-05"], 2, "is neither a number nor a date or time"),
        (["12", "", "tomorrow"], 3, "is neither a number nor a date or time"),
        (["2026-01-05T10:00:00 UTC"], 1, "is neither a number nor a date or time"),
        (["2026-01-05", "", "17"], 3, "mixes numbers with dates or times: dates or times come"),
        (["17", "18", "2026-01-05"], 3, "mixes numbers with dates or times: numbers come first"),
        (["1", "inf"], 2, "is infinite"),
    ],
)
def test_a_cell_that_does_not_fit_is_named_with_a_mend_that_can_be_followed(
    cells: list[str], row: int, what: str
) -> None:
    chunks = pa.chunked_array([pa.array([c]) for c in cells])  # a file is read in blocks
    for column in (pa.array(cells), chunks):
        with pytest.raises(UserError) as error:
            numbers(column)
        message = str(error.value)
        assert what in message and f"in data row {row} of 'log.csv'" in message
        assert f"Received: {cells[row - 1]!r}" in message and "Fix: " in message
        assert "as text" not in message and "leave" not in message


def test_other_types_are_refused() -> None:
    with pytest.raises(UserError, match="(?s)stored type struct.*as ISO 8601 text"):
        numbers(pa.array([{"a": 1}]))


@pytest.mark.parametrize(
    "values",
    [
        pa.array([0, 400_000 * 365 * 86_400], pa.timestamp("s")),
        pa.array([0, 10**7], pa.int32()).cast(pa.date32()),
        pa.array(["2026-01-05", "0001-01-01T00:00:00+01:00"]),
        pa.array(["2026-01-05T00:00:00Z", "0001-01-01T00:00:00+01:00"]),
    ],
)
def test_moments_without_a_text_are_refused(values: pa.Array) -> None:
    with pytest.raises(UserError, match="Column 'at'"):
        numbers(values)
    assert moment_text(numbers(pa.array(["0001-01-01"]))[0]) == "0001-01-01"  # the first with one


def test_files_of_one_table_hold_one_kind(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("at,x\n2026-01-05,1\n")
    (tmp_path / "b.csv").write_text("at,x\n,2\n")
    (tmp_path / "c.csv").write_text("at,x\n1767571200,3\n")
    a, b, c = (tmp_path / f"{name}.csv" for name in "abc")
    table = read_table([a, b], {"x": "int"}, times={"at": False})
    assert table.column_names == ["x", TIME + "at"]
    assert is_calendar(table[TIME + "at"]) and table[TIME + "at"].null_count == 1
    table = read_table([b, c], {"x": "int"}, times={"at": False})
    assert table[TIME + "at"].to_pylist() == [None, 1767571200]
    with pytest.raises(UserError, match="Column 'at' holds dates or times in .*a.csv.* numbers in"):
        read_table([a, b, c], {"x": "int"}, times={"at": False})


def test_times_in_32_bits_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        numbers(pa.array([5.0, 2.0**24 - 1], pa.float32()))
        assert not caplog.records
        numbers(pa.array([1767571200.0], pa.float32()))
    assert "which are 128 apart there" in caplog.text
