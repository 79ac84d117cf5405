"""Logs, side tables, earlier rows and new rows as text files hold them."""

from __future__ import annotations

import copy
import csv
import gzip
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lfm4ads_tf.data.raw import load_raw
from lfm4ads_tf.data.requests import read_requests
from lfm4ads_tf.data.samples import write_samples
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.fitted_encoding import FittedEncoding
from lfm4ads_tf.features.spec_file import parse_spec

ROWS = 900
SPEC: dict[str, Any] = {
    "name": "texts",
    "log": {"files": ["log*"], "format": "csv", "delimiter": "\t"},
    "tables": {"items": {"files": ["items*"], "key": "item", "owner": "item", "format": "csv"}},
    "auxiliary": {
        "files": ["past.tsv"],
        "scenario": "past",
        "order": "n",
        "labels": {"click": "seen"},
    },
    "keys": {"user": "user", "item": "item", "time": "time", "scenario": "place"},
    "tasks": {"click": "click"},
    "split": {"per": "all", "by": "time", "fractions": [0.8, 0.1, 0.1]},
    "features": {
        "query": {"owner": "context", "kind": "hashed"},
        "brand": {"owner": "item", "kind": "hashed"},
    },
}
QUERIES = [f'"inch {i}' if i % 3 == 0 else f"inch {i}" for i in range(ROWS)]
BRANDS = [f'"best {i}' if i % 7 == 0 else f"best {i}" for i in range(ROWS)]


def spec_of(change: dict[str, dict[str, Any]] | None = None) -> Any:
    """The spec with more keys for `log`, `items` and `auxiliary`."""
    spec = copy.deepcopy(SPEC)
    places = {"log": spec["log"], "items": spec["tables"]["items"], "past": spec["auxiliary"]}
    for table, more in (change or {}).items():
        places[table].update(more)
    return parse_spec(spec)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files in which some cells begin with a quote that is a character."""
    folder = tmp_path_factory.mktemp("texts")
    log = [f"u{i % 9}\ti{i}\tp\t{i}\t{i % 2}\t{query}" for i, query in enumerate(QUERIES)]
    past = [f'"u{i}\ti{i}\t{i}\t1' for i in range(4)]
    files = {
        "log.txt": ["user\titem\tplace\ttime\tclick\tquery", *log],
        "items.csv": ["item,brand", *[f"i{i},{brand}" for i, brand in enumerate(BRANDS)]],
        "past.tsv": ["user\titem\tn\tseen", *past],
    }
    for name, lines in files.items():
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def stored(folder: Path, tables: Mapping[str, pa.Table]) -> Path:
    """`OUT/data` as far as new rows are read and joined with it."""
    (folder / "tables").mkdir(parents=True)
    for name, table in tables.items():
        pq.write_table(table, folder / "tables" / f"{name}.parquet")
    write_samples(folder, np.zeros(0, np.int64), {})
    FittedEncoding({}, {}, {}, []).save(folder / "encoding")
    return folder


NONE = {name: {"quoting": "none"} for name in ("log", "items", "past")}


def test_quotes_that_are_characters_lose_no_row(folder: Path, tmp_path: Path) -> None:
    """Once 600 of 900 rows were prepared, and 517 of 900 brands were lost."""
    raw = load_raw(spec_of(NONE), folder)
    assert raw.rows == 4 + ROWS
    assert raw.columns["user"].to_pylist()[:4] == ['"u0', '"u1', '"u2', '"u3']
    assert raw.columns["query"].to_pylist()[4:] == QUERIES
    assert raw.columns["brand"].to_pylist()[4:] == BRANDS
    # predict: the log's format, delimiter and quoting
    rows = read_requests(spec_of(NONE), stored(tmp_path / "data", raw.tables), folder / "log.txt")
    assert rows["query"].to_pylist() == QUERIES
    assert rows["brand"].to_pylist() == BRANDS


@pytest.mark.parametrize(("table", "file"), [("log", "log.txt"), ("items", "items.csv")])
def test_quotes_that_swallow_rows_are_refused(folder: Path, table: str, file: str) -> None:
    change = {name: more for name, more in NONE.items() if name != table}
    with pytest.raises(UserError) as error:
        load_raw(spec_of(change), folder)
    assert f"quote in line 2 of '{folder / file}' is not closed in its line" in str(error.value)


def test_quotes_in_earlier_and_in_new_rows_are_refused(folder: Path, tmp_path: Path) -> None:
    change = {name: NONE[name] for name in ("log", "items")}
    with pytest.raises(UserError, match=r"line 2 of '.*past\.tsv' is not closed"):
        load_raw(spec_of(change), folder)
    stored(tmp_path, {"items": pa.table({"item": ["i"], "brand": ["b"]})})
    with pytest.raises(UserError, match=r"line 2 of '.*log\.txt' is not closed"):
        read_requests(spec_of(), tmp_path, folder / "log.txt")


def test_new_rows_in_parquet_beside_a_log_of_text(folder: Path, tmp_path: Path) -> None:
    stored(tmp_path, {"items": pa.table({"item": ["i1"], "brand": ["b"]})})
    new = pa.table({"user": ["u"], "item": ["i1"], "place": ["p"], "query": ['"q']})
    pq.write_table(new, tmp_path / "new.parquet")
    rows = read_requests(spec_of(), tmp_path, tmp_path / "new.parquet")
    assert (rows["query"].to_pylist(), rows["brand"].to_pylist()) == (['"q'], ["b"])


SMALL: dict[str, Any] = {
    "name": "lists",
    "log": {"files": ["log*"], "user_columns": ["likes", "likes_weights"]},
    "tables": {"items": {"files": ["items*"], "key": "item", "owner": "item"}},
    "keys": {"user": "user", "item": "item", "time": "time"},
    "tasks": {"click": "click"},
    "split": {"per": "all", "by": "time", "fractions": [0.5, 0.25, 0.25]},
    "features": {
        "likes": {"owner": "user", "kind": "multi", "weights": "likes_weights"},
        "seen": {"owner": "context", "kind": "sequence"},
        "genres": {"owner": "item", "kind": "multi", "weights": "genre_weights"},
        "vector": {"owner": "item", "kind": "pretrained", "size": 2},
    },
}
GENRES = [["Action", "Sci Fi"], ["Drama"], [], ["It's", 'a "b"']]
WEIGHTS = [[0.5, 2.0], [1.0], [], [3.0, 4.5]]
VECTORS = [[0.25, -1.0], [1.0, 2.0], [0.0, 1e-3], [4.0, 5.0]]
SEEN = [[3, 1], [2], [], [10, 20]]


def write_small(folder: Path, style: str) -> None:
    """The same log and items, with lists as each program writes them."""
    written: dict[str, Callable[[list[Any]], str]] = {
        "python": repr,
        "json": json.dumps,
        "joined": lambda values: "|".join(map(str, values)),
        "tuple": lambda values: repr(tuple(values)) if values else "",
    }
    items = {
        "item": ["a", "b", "c", "d"],
        "genres": GENRES,
        "genre_weights": WEIGHTS,
        "vector": VECTORS,
    }
    log = {
        "user": ["u", "v", "u", "v"],
        "item": ["d", "c", "b", "a"],
        "time": [1, 2, 3, 4],
        "click": [0, 1, 0, 1],
        "likes": GENRES,
        "likes_weights": WEIGHTS,
        "seen": SEEN,
    }
    for name, columns in (("items", items), ("log", log)):
        if style == "parquet":
            pq.write_table(pa.table(columns), folder / f"{name}.parquet")
            continue
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            for row in zip(*columns.values(), strict=True):
                writer.writerow([written[style](v) if isinstance(v, list) else v for v in row])


@pytest.mark.parametrize("style", ["python", "json", "joined", "tuple"])
def test_lists_are_read_however_they_are_printed(tmp_path: Path, style: str) -> None:
    """Once `['Action', 'Comedy']` was one value."""
    raws = {}
    for name in ("parquet", style):
        (tmp_path / name).mkdir()
        write_small(tmp_path / name, name)
        raws[name] = load_raw(parse_spec(SMALL), tmp_path / name)
    expected, found = raws["parquet"].columns, raws[style].columns
    assert found["seen"].to_pylist() == [[str(v) for v in of] for of in SEEN]
    assert found["likes"].to_pylist() == GENRES
    assert found["likes_weights"].to_pylist() == WEIGHTS
    for name, column in expected.items():
        assert found[name].equals(column), name
    data = stored(tmp_path / "data", raws[style].tables)
    rows = read_requests(parse_spec(SMALL), data, tmp_path / style / "log.csv")
    for name in ("likes", "likes_weights", "seen", "genres", "vector"):
        assert rows[name].equals(expected[name]), name


def test_a_marker_of_a_missing_value_is_no_list(tmp_path: Path) -> None:
    write_small(tmp_path, "json")
    items = (tmp_path / "items.csv").read_text()
    (tmp_path / "items.csv").write_text(items.replace("c,[],[]", "c,N/A,N/A"))
    raw = load_raw(parse_spec({**SMALL, "missing": ["N/A"]}), tmp_path)
    assert raw.columns["genres"].to_pylist() == GENRES[::-1]
    with pytest.raises(UserError, match="no list of texts or numbers in data row 3 of"):
        load_raw(parse_spec(SMALL), tmp_path)


def test_another_separator_is_told_with_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_small(tmp_path, "joined")
    lines = ["item,genres,genre_weights,vector", 'a,"Action,Comedy",1,', "b,,,", "d,It's,1,"]
    (tmp_path / "items.csv").write_text("\n".join([*lines, "c,Drama,2,1|2"]) + "\n")
    with caplog.at_level(logging.WARNING):
        raw = load_raw(parse_spec(SMALL), tmp_path)
    assert raw.columns["genres"].to_pylist()[::3] == [["It's"], ["Action,Comedy"]]
    (told,) = [r.getMessage() for r in caplog.records if "list_separator" in r.getMessage()]
    assert "column 'genres'" in told and "'|' is in none of its 3 values" in told
    assert "',' is in 1 of them" in told and "space" not in told


def write_part(path: Path, rows: list[dict[str, Any]]) -> None:
    """One part of a data set in the format of its extension; maybe without rows."""
    names = ["user", "item", "time", "click"]
    kind = path.name.partition(".")[2]
    if kind == "parquet":
        types = [pa.string(), pa.string(), pa.int64(), pa.int64()]
        schema = pa.schema(list(zip(names, types, strict=True)))
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    elif kind == "tfrecord":
        import tensorflow as tf

        with tf.io.TFRecordWriter(str(path)) as writer:
            for row in rows:
                example = tf.train.Example()
                for name in names[:2]:
                    example.features.feature[name].bytes_list.value.append(row[name].encode())
                for name in names[2:]:
                    example.features.feature[name].int64_list.value.append(row[name])
                writer.write(example.SerializeToString())
    else:
        lines = [",".join(names), *[",".join(str(row[n]) for n in names) for row in rows]]
        content = ("\n".join(lines) + "\n").encode()
        path.write_bytes(gzip.compress(content) if kind == "csv.gz" else content)


PART_SPEC: dict[str, Any] = {
    **{key: SMALL[key] for key in ("name", "keys", "tasks", "split")},
    "log": {"files": ["part*", "_SUCCESS"]},
    "features": {"item": {"owner": "item", "kind": "hashed"}},
}


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet", "tfrecord"])
def test_empty_parts_hold_no_rows(tmp_path: Path, kind: str) -> None:
    rows = [{"user": "u", "item": f"i{t}", "time": t, "click": t % 2} for t in range(8)]
    for k, part in enumerate([[], rows[:3], [], rows[3:], []]):
        write_part(tmp_path / f"part-{k}.{kind}", part)
    (tmp_path / "_SUCCESS").touch()
    raw = load_raw(parse_spec(PART_SPEC), tmp_path)
    assert raw.columns["item"].to_pylist() == [f"i{t}" for t in range(8)]
    for path in tmp_path.glob("part*"):
        write_part(path, [])
    with pytest.raises(UserError, match=r"is empty|no data rows"):
        load_raw(parse_spec(PART_SPEC), tmp_path)


def test_rows_behind_empty_parts_are_named_as_the_user_sees_them(tmp_path: Path) -> None:
    rows = [{"user": "u", "item": f"i{t}", "time": -t, "click": t % 2} for t in range(8)]
    rows[5]["click"] = 3
    for k, part in enumerate([rows[:3], [], rows[3:]]):
        write_part(tmp_path / f"part-{k}.csv", part)
    (tmp_path / "_SUCCESS").touch()
    with pytest.raises(UserError) as error:
        load_raw(parse_spec(PART_SPEC), tmp_path)
    assert (
        f"Received: 3, in 1 of 8 rows, the first is data row 3 of '{tmp_path / 'part-2.csv'}'"
        in str(error.value)
    )


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("items", "4.0|5.0", "4.0", "vectors of 2 numbers.\nReceived: 1 numbers in {} 4 of {}"),
        (
            "items",
            "1.0|2.0",
            "1e39|2.0",
            "beyond float32 inside a vector.\nReceived: 1e+39 in {} 2",
        ),
        ("items", "3.0|4.5", "3.0", "differ in length.\nReceived: 2 values and 1 weights in {} 4"),
        ("log", "0.5|2.0", "0.5|2|1", "Received: 2 values and 3 weights in {} 1 of {}"),
        ("log", "3|1", "\"['a', 'b' 'c']\"", None),
        ("log", "10|20", "\"['a', 'b']\"", "is no list of texts or numbers in {} 1 of {}"),
        ("items", "Drama", "[Drama]", None),
    ],
)
def test_lists_that_do_not_fit_are_named_with_file_and_row(
    tmp_path: Path, file: str, old: str, new: str, message: str | None
) -> None:
    write_small(tmp_path, "joined")
    path = tmp_path / f"{file}.csv"
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    if message is None:  # brackets that are text beside other text
        column = load_raw(parse_spec(SMALL), tmp_path).columns[
            "seen" if file == "log" else "genres"
        ]
        assert [new.strip('"')] in column.to_pylist()
        return
    with pytest.raises(UserError) as error:
        load_raw(parse_spec(SMALL), tmp_path)
    assert message.format("data row", f"'{path}'") in str(error.value)
