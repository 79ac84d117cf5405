"""read_table: the same table in any format, column order, file order, and bad paths."""

from __future__ import annotations

import csv
import gzip
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lfm4ads_tf.data.sources import read_table
from lfm4ads_tf.data.sources.table import column_names
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.text_options import TextOptions
from lfm4ads_tf.features.value_texts import value_text

COLUMNS = {"s": "string", "i": "int", "f": "float", "ss": "strings", "fs": "floats"}
ARROW = pa.schema(
    [
        ("s", pa.string()),
        ("i", pa.int64()),
        ("f", pa.float64()),
        ("ss", pa.list_(pa.string())),
        ("fs", pa.list_(pa.float64())),
    ]
)

# CSV normalises a lone carriage return inside quotes in some writers, and NUL ends C strings.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), min_size=1, max_size=8)
# A bracket may begin a printed list, see `list_text`.
PIECE = st.text(
    st.characters(codec="utf-8", exclude_characters="\r\x00|[({"), min_size=1, max_size=4
)
# tf.train.Example stores single precision.
NUMBER = st.floats(width=32, allow_nan=False, allow_infinity=False)
ROW = st.fixed_dictionaries(
    {
        "s": st.none() | TEXT | st.sampled_from(["7.0", "007", "-0", "1e+10", "TRUE", "1e3"]),
        "i": st.none() | st.integers(-(2**63), 2**63 - 1),
        "f": st.none() | NUMBER,
        "ss": st.lists(PIECE | st.sampled_from(["7.0", "True"]), max_size=3),
        "fs": st.lists(NUMBER, max_size=3),
    }
)


def write_csv_file(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    def cell(value: Any) -> str:
        if isinstance(value, list):
            return "|".join(map(cell, value))
        return "" if value is None else repr(value) if isinstance(value, float) else str(value)

    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        writer.writerows([[cell(row[name]) for name in COLUMNS] for row in rows])
    return path


def write_tfrecord_file(path: Path, rows: Sequence[dict[str, Any]], compression: str = "") -> Path:
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for row in rows:
            example = tf.train.Example()
            for name, kind in COLUMNS.items():
                value = row[name]
                values = value if isinstance(value, list) else [] if value is None else [value]
                feature = example.features.feature[name]
                if kind in ("string", "strings"):
                    feature.bytes_list.value.extend(v.encode() for v in values)
                elif kind == "int":
                    feature.int64_list.value.extend(values)
                else:
                    feature.float_list.value.extend(values)
            writer.write(example.SerializeToString())
    return path


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(ROW, min_size=1, max_size=6), compression=st.sampled_from(["", "GZIP"]))
def test_csv_parquet_and_tfrecord_read_alike(
    rows: list[dict[str, Any]], compression: str, tmp_path: Path
) -> None:
    expected = pa.Table.from_pylist(rows, schema=ARROW)
    files = [
        write_csv_file(tmp_path / "t.csv", rows),
        tmp_path / "t.parquet",
        write_tfrecord_file(tmp_path / "t.tfrecord", rows, compression),
    ]
    pq.write_table(expected, files[1])
    table = read_table(files, COLUMNS, text=TextOptions(newlines_in_cells=True))
    assert table.schema == ARROW
    for row in rows:  # an integral number and a truth value have one text
        row["s"] = row["s"] and value_text(row["s"])
        row["ss"] = [value_text(text) for text in row["ss"]]
    for i, path in enumerate(files):
        assert table.slice(i * len(rows), len(rows)).to_pylist() == rows, path.name


def test_columns_and_rows_come_in_the_order_asked_for(tmp_path: Path) -> None:
    for name, start in (("a.csv", 0), ("b.csv", 10)):
        lines = [f"{start + i},x{start + i},{i}" for i in range(3)]
        (tmp_path / name).write_text("\n".join(["id,name,unused", *lines]) + "\n")
    table = read_table([tmp_path / "b.csv", tmp_path / "a.csv"], {"name": "string", "id": "int"})
    assert table.column_names == ["name", "id"]
    assert table["id"].to_pylist() == [10, 11, 12, 0, 1, 2]
    assert table["name"].to_pylist()[0] == "x10"


def test_large_gzipped_csv_equals_numpy(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ids, values = rng.integers(-(10**12), 10**12, 200_000), rng.normal(size=200_000)
    plain = tmp_path / "plain"
    arrow_csv.write_csv(pa.table({"id": ids, "value": values}), plain)
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(plain.read_bytes(), 1))
    table = read_table([path], {"value": "float", "id": "int"})
    np.testing.assert_array_equal(table["id"].to_numpy(), ids)
    np.testing.assert_array_equal(table["value"].to_numpy(), values)


def test_format_delimiter_and_list_separator(tmp_path: Path) -> None:
    (tmp_path / "log.data").write_text("a;b\n1;x y\n2;\n")
    table = read_table(
        [tmp_path / "log.data"],
        {"a": "int", "b": "strings"},
        format="csv",
        delimiter=";",
        list_separator=" ",
    )
    assert table.to_pylist() == [{"a": 1, "b": ["x", "y"]}, {"a": 2, "b": []}]
    (tmp_path / "log.tsv").write_text("a\tb\n1\tx,y\n")
    assert read_table([tmp_path / "log.tsv"], {"b": "string"})["b"].to_pylist() == ["x,y"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.csv", None, "does not exist"),
        ("zero.csv", b"", "is empty"),
        ("zero.parquet", b"", "is empty"),
        ("zero.tfrecord", b"", "is empty"),
        ("log.xlsx", b"a\n1\n", "format of .* is unknown"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_table([tmp_path / name], {"a": "int"})
    assert name in str(error.value)
    assert "Fix: " in str(error.value)


def test_no_paths_folder_and_misspelt_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No file to read"):
        read_table([], {"a": "int"})
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        read_table([tmp_path / "folder.csv"], {"a": "int"})
    (tmp_path / "ratings.csv").write_text("a\n1\n")
    with pytest.raises(UserError, match=re.escape("Did you mean 'ratings.csv'?")):
        read_table([tmp_path / "rating.csv"], {"a": "int"})


def test_program_errors_are_not_user_errors(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a\n1\n")
    with pytest.raises(ValueError, match="column type"):
        read_table([tmp_path / "t.csv"], {"a": "text"})  # type: ignore[dict-item]
    with pytest.raises(UserError, match="delimiter"):
        read_table([tmp_path / "t.csv"], {"a": "int"}, delimiter="")


def test_missing_column_names_file_nearest_and_available(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("user_id,clicks\n1,2\n")
    pq.write_table(pa.table({"user_id": [1], "clicks": [2]}), tmp_path / "t.parquet")
    for name in ("t.csv", "t.parquet"):
        with pytest.raises(UserError, match="Column 'click' is missing") as error:
            read_table([tmp_path / name], {"click": "int"})
        text = str(error.value)
        assert name in text and "Did you mean 'clicks'?" in text and "'user_id'" in text


def test_floats_survive_text_exactly(tmp_path: Path) -> None:
    values = [0.1, 1e-300, -1.7976931348623157e308, math.pi]
    (tmp_path / "t.csv").write_text("f\n" + "\n".join(map(repr, values)) + "\n")
    assert read_table([tmp_path / "t.csv"], {"f": "float"})["f"].to_pylist() == values


def test_column_names_of_each_format(tmp_path: Path) -> None:
    row = {"s": "a", "i": 1, "f": 0.5, "ss": ["x"], "fs": [1.0]}
    pq.write_table(pa.Table.from_pylist([row], schema=ARROW), tmp_path / "t.parquet")
    assert column_names(write_csv_file(tmp_path / "t.csv", [row])) == list(COLUMNS)
    assert column_names(tmp_path / "t.parquet") == list(COLUMNS)
    assert set(column_names(write_tfrecord_file(tmp_path / "t.tfrecord", [row]))) == set(COLUMNS)
    for name in ("bad.parquet", "bad.tfrecord"):
        (tmp_path / name).write_bytes(b"neither of the two formats")
        with pytest.raises(UserError, match="truncated or corrupt"):
            column_names(tmp_path / name)
