"""Times of a log: one cache however they are written; bounds, periods and units that fit."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from lfm4ads_tf.data.append import append_to
from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.data.encode import encode_to
from lfm4ads_tf.data.new_rows import read_files
from lfm4ads_tf.data.raw import load_raw
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.spec_file import parse_spec

ROWS = 80
BEGIN = 1_767_225_600_000  # 2026-01-01, in milliseconds
EAST = timezone(timedelta(hours=2))
SPEC: dict[str, Any] = {
    "name": "times",
    "keys": {"user": "u", "item": "i", "time": "at"},
    "tasks": {"click": "c"},
    "split": {"by": "at", "train_until": "2026-01-07", "valid_until": "2026-01-09T12:00:00+02:00"},
    "period": {"blocks": 4},
    "features": {
        "u": {"owner": "user", "kind": "vocabulary"},
        "i": {"owner": "item", "kind": "vocabulary"},
        "rate": {"owner": "item", "kind": "statistic", "task": "click", "keys": ["item"]},
        "before": {"owner": "user", "kind": "sequence", "events_of": "click", "table": "i"},
    },
}


def rows() -> dict[str, list[Any]]:
    """Columns of a log over ten days, not in time order, with ties, its times in milliseconds."""
    rng = np.random.default_rng(3)
    at = (BEGIN + rng.integers(0, 10 * 86_400_000, ROWS)).tolist()
    at[5] = at[17]
    return {
        "u": [f"u{k}" for k in rng.integers(0, 6, ROWS)],
        "i": [f"i{k}" for k in rng.integers(0, 5, ROWS)],
        "c": rng.integers(0, 2, ROWS).tolist(),
        "at": at,
    }


def moment(ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)


def naive(ms: int) -> datetime:
    return moment(ms).replace(tzinfo=None)


def write(path: Path, columns: dict[str, Any]) -> None:
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    elif path.suffix == ".csv":
        lines = [
            ",".join(columns),
            *[",".join(map(str, r)) for r in zip(*columns.values(), strict=True)],
        ]
        path.write_text("\n".join(lines) + "\n")
    else:
        with tf.io.TFRecordWriter(str(path)) as writer:
            for row in zip(*columns.values(), strict=True):
                example = tf.train.Example()
                for name, value in zip(columns, row, strict=True):
                    feature = example.features.feature[name]
                    if isinstance(value, int):
                        feature.int64_list.value.append(value)
                    else:
                        feature.bytes_list.value.append(str(value).encode())
                writer.write(example.SerializeToString())


def encoded(
    folder: Path, columns: dict[str, Any], *, suffix: str = "csv", **over: Any
) -> tuple[FeatureSpec, Path]:
    folder.mkdir(parents=True)
    name = f"log.{suffix}"
    write(folder / name, columns)
    spec = parse_spec({**SPEC, "log": {"files": [name]}, **over})
    (folder / "data").mkdir()
    encode_to(folder / "data", spec, load_raw(spec, folder), {})
    return spec, folder / "data"


def assert_same(ours: Path, theirs: Path) -> None:
    """Two caches, bit by bit."""
    names = sorted(p.name for p in theirs.glob("*.npy"))
    assert len(names) > 8 and names == sorted(p.name for p in ours.glob("*.npy"))
    for name in names:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
    texts = [(f / "manifest.json").read_text() for f in (ours, theirs)]
    assert json.loads(texts[0]) == json.loads(texts[1])
    for part in sorted(p.relative_to(theirs) for p in theirs.rglob("*.parquet")):
        assert pq.read_table(ours / part).equals(pq.read_table(theirs / part)), part


Times = Callable[[list[int]], Any]
WAYS: dict[str, tuple[str, str, Times]] = {
    "ms": ("csv", "ms", lambda at: at),
    "us": ("parquet", "us", lambda at: [1000 * t for t in at]),
    "ns": ("parquet", "ns", lambda at: [1_000_000 * t for t in at]),
    "iso without zone": ("csv", "s", lambda at: [naive(t).isoformat() for t in at]),
    "iso with a space": ("csv", "iso", lambda at: [naive(t).isoformat(" ") for t in at]),
    "iso with Z": ("csv", "ms", lambda at: [naive(t).isoformat() + "Z" for t in at]),
    "iso with zone": ("csv", "s", lambda at: [moment(t).astimezone(EAST).isoformat() for t in at]),
    "text in Parquet": ("parquet", "s", lambda at: [naive(t).isoformat() for t in at]),
    "timestamp[us]": ("parquet", "s", lambda at: pa.array(map(naive, at), pa.timestamp("us"))),
    "timestamp[ns]": ("parquet", "iso", lambda at: pa.array(map(naive, at), pa.timestamp("ns"))),
    "timestamp[ms, tz]": (
        "parquet",
        "s",
        lambda at: pa.array(map(moment, at), pa.timestamp("ms", "Europe/Berlin")),
    ),
    "TFRecord bytes": ("tfrecord", "s", lambda at: [moment(t).isoformat() for t in at]),
    "TFRecord integers": ("tfrecord", "ms", lambda at: at),
}


@pytest.fixture(scope="module")
def in_seconds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    columns = rows()
    columns["at"] = [f"{t // 1000}.{t % 1000:03d}" for t in columns["at"]]
    return encoded(tmp_path_factory.mktemp("seconds") / "log", columns)[1]


@pytest.mark.parametrize("way", list(WAYS))
def test_one_log_gives_one_cache_however_its_times_are_written(
    way: str, in_seconds: Path, tmp_path: Path
) -> None:
    suffix, unit, times = WAYS[way]
    columns = rows()
    columns["at"] = times(columns["at"])
    keys = {**SPEC["keys"], "time_unit": unit}
    assert_same(encoded(tmp_path / "log", columns, suffix=suffix, keys=keys)[1], in_seconds)


def test_the_cache_is_in_the_order_of_the_times_and_split_at_the_dates(in_seconds: Path) -> None:
    cache, at = EncodedCache(in_seconds), np.array(rows()["at"])
    np.testing.assert_array_equal(cache.time, np.sort(at) / 1000)
    bounds = [BEGIN + 6 * 86_400_000, BEGIN + 8 * 86_400_000 + 10 * 3_600_000]
    expected = [(at < bounds[0]).sum(), ((at >= bounds[0]) & (at < bounds[1])).sum()]
    assert [len(cache.rows_of(name)) for name in ("train", "valid")] == expected
    assert min(expected) > 5


def day_columns() -> dict[str, Any]:
    columns = rows()
    columns["day"] = [naive(t).date() for t in columns["at"]]
    return columns


BY_DAY = {
    "keys": {**SPEC["keys"], "time_unit": "ms"},
    "split": {"by": "day", "train_until": date(2026, 1, 7), "valid_until": "2026-01-09"},
    "period": {"by": "day"},
}


@pytest.mark.parametrize("way", ["date32", "date64", "timestamp", "text in Parquet", "TFRecord"])
def test_days_are_dates_in_any_form(way: str, tmp_path: Path) -> None:
    columns = day_columns()
    theirs = encoded(tmp_path / "csv", columns, **BY_DAY)[1]
    days = columns["day"]
    columns["day"] = {
        "date32": lambda: pa.array(days, pa.date32()),
        "date64": lambda: pa.array(days, pa.date64()),
        "timestamp": lambda: pa.array(days, pa.date32()).cast(pa.timestamp("s")),
        "text in Parquet": lambda: [d.isoformat() for d in days],
        "TFRecord": lambda: days,
    }[way]()
    suffix = "tfrecord" if way == "TFRecord" else "parquet"
    assert_same(encoded(tmp_path / way, columns, suffix=suffix, **BY_DAY)[1], theirs)
    assert EncodedCache(theirs).manifest["periods"] == [f"2026-01-{d:02d}" for d in range(1, 11)]


def test_hours_are_periods_named_as_times(tmp_path: Path) -> None:
    columns = day_columns()
    columns["day"] = [datetime(d.year, d.month, d.day, 12 * (d.day % 2)) for d in columns["day"]]
    _, data = encoded(tmp_path / "log", columns, **BY_DAY)
    names = EncodedCache(data).manifest["periods"]
    assert names[:3] == ["2026-01-01T12:00:00Z", "2026-01-02", "2026-01-03T12:00:00Z"]


def later(days: list[Any], path: Path) -> Path:
    """A file of new rows, one for each day."""
    count = len(days)
    columns = {"u": ["u1"] * count, "i": ["i1"] * count, "c": [1] * count}
    at = [BEGIN + (20 + k) * 86_400_000 for k in range(count)]
    write(path, {**columns, "at": at, "day": days})
    return path


def test_new_rows_go_on_after_the_last_date(tmp_path: Path) -> None:
    spec, data = encoded(tmp_path / "log", day_columns(), **BY_DAY)
    earlier = EncodedCache(data)
    new = read_files(spec, earlier, [later(["2026-01-12", "2026-01-11"], tmp_path / "new.csv")])
    assert new.period_values == ["2026-01-11", "2026-01-12"] and new.period.tolist() == [10, 11]
    assert new.time.tolist() == [BEGIN / 1000 + 21 * 86_400, BEGIN / 1000 + 20 * 86_400]
    (tmp_path / "appended").mkdir()
    append_to(tmp_path / "appended", spec, earlier, new, {})
    appended = EncodedCache(tmp_path / "appended").manifest
    assert appended["periods"][-3:] == ["2026-01-10", "2026-01-11", "2026-01-12"]
    assert appended["point_in_time"] == {"all": True}
    with pytest.raises(UserError, match="(?s)'day' from 2026-01-10; the run's last is 2026-01-10"):
        read_files(spec, earlier, [later(["2026-01-10", "2026-01-11"], tmp_path / "old.csv")])
    with pytest.raises(UserError, match="'day' holds numbers, but the run's periods are dates"):
        read_files(spec, earlier, [later([20260112], tmp_path / "number.csv")])


def test_a_run_with_numbers_takes_no_dates(tmp_path: Path) -> None:
    columns = day_columns()
    columns["day"] = [f"{d:%Y%m%d}" for d in columns["day"]]
    split = {"by": "day", "train_until": 20260107, "valid_until": 20260109}
    spec, data = encoded(tmp_path / "log", columns, **{**BY_DAY, "split": split})
    earlier = EncodedCache(data)
    assert earlier.manifest["periods"][0] == "20260101"
    assert read_files(spec, earlier, [later([20260112], tmp_path / "a.csv")]).period_values == [
        "20260112"
    ]
    with pytest.raises(UserError, match="holds dates or times, but the run's periods are numbers"):
        read_files(spec, earlier, [later(["2026-01-12"], tmp_path / "b.csv")])


@pytest.mark.parametrize(
    ("split", "dated", "message"),
    [
        ({"train_until": 20260107, "valid_until": 20260109}, True, "holds dates or times, with"),
        ({"train_until": "2026-01-07", "valid_until": "2026-01-09"}, False, "numbers, with dates"),
    ],
)
def test_bounds_of_another_kind_than_their_column_are_refused(
    split: dict[str, Any], dated: bool, message: str, tmp_path: Path
) -> None:
    columns = day_columns()
    if not dated:
        columns["day"] = [f"{d:%Y%m%d}" for d in columns["day"]]
    with pytest.raises(UserError, match=message) as error:
        encoded(tmp_path / "log", columns, **{**BY_DAY, "split": {"by": "day", **split}})
    assert ("2026-01-01 to 2026-01-10" if dated else "20260101 to 20260110") in str(error.value)


def test_an_empty_split_shows_dates(tmp_path: Path) -> None:
    split = {"by": "day", "train_until": "2025-01-07", "valid_until": "2026-01-09"}
    with pytest.raises(UserError, match="(?s)train split is empty.*from 2026-01-01 to 2026-01-10"):
        encoded(tmp_path / "log", day_columns(), **{**BY_DAY, "split": split})


def test_a_time_column_may_be_a_feature_too(tmp_path: Path) -> None:
    features = {**SPEC["features"], "day": {"owner": "context", "kind": "vocabulary"}}
    spec, data = encoded(tmp_path / "log", day_columns(), **BY_DAY, features=features)
    assert load_raw(spec, tmp_path / "log").columns["day"].to_pylist()[0] == "2026-01-01"
    table = next(t for t in EncodedCache(data).layout.tables if t.name == "day")
    assert table.rows == 6 + 1  # the days of training, and out of vocabulary
    new = read_files(spec, EncodedCache(data), [later(["2026-01-11"], tmp_path / "new.csv")])
    assert new.columns["day"].to_pylist() == ["2026-01-11"]


@pytest.mark.parametrize(
    ("unit", "scale", "told"),
    [
        ("s", 1, "inside with `ms`"),  # milliseconds read as seconds: the year 57,000
        ("ms", 1e-3, "inside with `s`"),  # seconds read as milliseconds: January 1970
        ("s", 1e3, "inside with `us`"),
        ("ms", 1, None),
        ("us", 1e3, None),
        ("s", 1e-9, None),  # small numbers make sense in no unit: a clock of its own
    ],
)
def test_times_that_make_sense_in_another_unit_are_told(
    unit: str, scale: float, told: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    columns = rows()
    columns["at"] = [t * scale for t in columns["at"]]
    write(tmp_path / "log.csv", columns)
    over = {"keys": {**SPEC["keys"], "time_unit": unit}}
    over["split"] = {"per": "all", "by": "time", "fractions": [0.6, 0.2, 0.2]}
    with caplog.at_level(logging.WARNING):
        load_raw(parse_spec({**SPEC, "log": {"files": ["log.csv"]}, **over}), tmp_path)
    assert len(caplog.records) == (told is not None)
    assert (told or "") in caplog.text


def test_dates_written_as_numbers_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    columns = rows()
    columns["at"] = [f"{naive(t):%Y%m%d}" for t in columns["at"]]
    write(tmp_path / "log.csv", columns)
    split = {"per": "all", "by": "time", "fractions": [0.6, 0.2, 0.2]}
    with caplog.at_level(logging.WARNING):
        load_raw(parse_spec({**SPEC, "log": {"files": ["log.csv"]}, "split": split}), tmp_path)
    assert "look like dates, but are read as seconds" in caplog.text


def test_auxiliary_rows_may_be_ordered_by_dates(tmp_path: Path) -> None:
    write(tmp_path / "past.csv", {
        "u": ["a", "b", "c"], "i": ["i1", "i2", "i3"], "seen": [1, 0, 1],
        "when": ["2025-10-02", "2025-09-30", "2025-10-01"],
    })  # fmt: skip
    write(tmp_path / "log.csv", {**rows(), "tab": ["t"] * ROWS})
    auxiliary = {
        "files": ["past.csv"], "scenario": "past", "order": "when", "labels": {"click": "seen"},
    }  # fmt: skip
    keys = {**BY_DAY["keys"], "scenario": "tab"}
    spec = parse_spec({**SPEC, "log": {"files": ["log.csv"]}, "keys": keys, "auxiliary": auxiliary})
    assert load_raw(spec, tmp_path).columns["u"].to_pylist()[:3] == ["b", "c", "a"]
