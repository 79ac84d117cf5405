"""One data set as CSV, gzipped CSV, Parquet and TFRecord: the same encoded cache, bit by bit."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import yaml

NUMBERS = {"price": float, "timestamp": int, "day": int, "clicked": int, "ordered": int}
LISTS = ("tags",)


def _typed(rows: list[list[str]], columns: list[str]) -> list[dict[str, Any]]:
    """Rows with numbers and lists as such, and None where a value is missing."""

    def value(name: str, text: str) -> Any:
        if not text:
            return None
        if name in LISTS:
            return text.split("|")
        return NUMBERS.get(name, str)(text)

    return [{n: value(n, t) for n, t in zip(columns, row, strict=True)} for row in rows]


def _example(row: dict[str, Any]) -> bytes:
    features = {}
    for name, value in row.items():
        if value is None:
            continue  # an absent feature is a missing value
        if isinstance(value, float):
            feature = tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
        elif isinstance(value, int):
            feature = tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        else:
            texts = [t.encode() for t in (value if isinstance(value, list) else [value])]
            feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=texts))
        features[name] = feature
    return bytes(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())


def _single(table: pa.Table) -> pa.Table:
    """Numbers as the encoder reads them, in single precision: an Example holds no other."""
    fields = [f.with_type(pa.float32()) if f.type == pa.float64() else f for f in table.schema]
    return table.cast(pa.schema(fields))


def _write(folder: Path, name: str, rows: list[list[str]], columns: list[str]) -> None:
    path = folder / name
    if name.endswith(".csv"):
        with path.open("w", newline="") as stream:
            csv.writer(stream).writerows([columns, *rows])
    elif name.endswith(".csv.gz"):
        with gzip.open(path, "wt", newline="") as stream:
            csv.writer(stream).writerows([columns, *rows])
    elif name.endswith(".parquet"):
        typed = _typed(rows, columns)
        half = len(typed) // 2  # two files, concatenated in the order of their names
        for part, some in (("1", typed[:half]), ("2", typed[half:])):
            pq.write_table(pa.Table.from_pylist(some), folder / f"{part}_{name}")
    else:
        with tf.io.TFRecordWriter(str(path)) as writer:
            for row in _typed(rows, columns):
                writer.write(_example(row))


@pytest.fixture(scope="module")
def caches(
    cli: Callable[..., Any],
    shop_module: dict[str, Any],
    shop_yaml: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    rows, columns = shop_module["shop_rows"](rows=900), shop_module["COLUMNS"].split(",")
    found = {}
    for name in ("shop.csv", "shop.csv.gz", "shop.parquet", "shop.tfrecord"):
        folder = tmp_path_factory.mktemp("format")
        _write(folder, name, rows, columns)
        pattern = f"*_{name}" if name.endswith(".parquet") else name
        (folder / "spec.yaml").write_text(shop_yaml.replace("[shop.csv]", f"['{pattern}']"))
        done = cli(
            "prepare", "--spec", folder / "spec.yaml", "--data-dir", folder,
            "--out", folder / "out", "--quiet",
        )  # fmt: skip
        assert done.code == 0, done.text
        found[name] = folder / "out" / "data"
    return found


@pytest.mark.parametrize("name", ["shop.csv.gz", "shop.parquet", "shop.tfrecord"])
def test_every_format_gives_the_cache_of_the_csv_file(caches: dict[str, Path], name: str) -> None:
    ours, theirs = caches[name], caches["shop.csv"]
    arrays = sorted(p.name for p in theirs.glob("*.npy"))
    assert len(arrays) > 10 and arrays == sorted(p.name for p in ours.glob("*.npy"))
    for array in arrays:
        assert (ours / array).read_bytes() == (theirs / array).read_bytes(), array
    for table in sorted(p.relative_to(theirs) for p in theirs.rglob("*.parquet")):
        assert _single(pq.read_table(ours / table)).equals(_single(pq.read_table(theirs / table)))
    manifests = [json.loads((f / "manifest.json").read_text()) for f in (ours, theirs)]
    for manifest in manifests:
        manifest.pop("fingerprint")  # names, sizes and times of the source files
    assert manifests[0] == manifests[1]
    encodings = [(f / "encoding" / "encoding.json").read_bytes() for f in (ours, theirs)]
    assert encodings[0] == encodings[1]


def test_dates_and_iso_times_give_the_cache_of_the_numbers(
    caches: dict[str, Path],
    cli: Callable[..., Any],
    shop_module: dict[str, Any],
    shop_yaml: str,
    tmp_path: Path,
) -> None:
    rows, columns = shop_module["shop_rows"](rows=900), shop_module["COLUMNS"].split(",")
    at, day = columns.index("timestamp"), columns.index("day")
    for row in rows:
        row[at] = datetime.fromtimestamp(int(row[at]), timezone(timedelta(hours=5))).isoformat()
        row[day] = f"{row[day][:4]}-{row[day][4:6]}-{row[day][6:]}"
    _write(tmp_path, "shop.csv", rows, columns)
    (tmp_path / "spec.yaml").write_text(shop_yaml)
    done = cli(
        "prepare", "--spec", tmp_path / "spec.yaml", "--data-dir", tmp_path,
        "--out", tmp_path / "out", "--quiet", "--set", "split.train_until=2026-01-06",
        "--set", "split.valid_until=2026-01-07",
    )  # fmt: skip
    assert done.code == 0, done.text
    ours, theirs = tmp_path / "out" / "data", caches["shop.csv"]
    for array in sorted(p.name for p in theirs.glob("*.npy")):
        assert (ours / array).read_bytes() == (theirs / array).read_bytes(), array
    mine, other = (json.loads((f / "manifest.json").read_text()) for f in (ours, theirs))
    assert mine["periods"] == [f"{p[:4]}-{p[4:6]}-{p[6:]}" for p in other["periods"]]
    resolved = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert resolved["spec"]["split"]["train_until"] == "2026-01-06"
    # The folder is the same run's when it is named again, dates and all.
    again = cli(
        "prepare", "--spec", tmp_path / "spec.yaml", "--data-dir", tmp_path,
        "--out", tmp_path / "out", "--quiet", "--set", "split.train_until='2026-01-06T00:00:00Z'",
        "--set", "split.valid_until=2026-01-07",
    )  # fmt: skip
    assert again.code == 0, again.text
