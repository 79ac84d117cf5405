"""Markers of missing values: data that hold them are encoded as data with empty cells."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lfm4ads_tf.data.raw import load_raw
from lfm4ads_tf.data.requests import read_requests
from lfm4ads_tf.data.sources.table import read_table
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.fitted_encoding import FittedEncoding
from lfm4ads_tf.features.missing_values import MissingValues
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.features.spec_file import parse_spec

TEXTS = {"age": "-1", "level": "N/A", "segment": "unknown", "price": "-", "brand": "NULL"}
MISSING = {"*": ["N/A", "-", "-1"], "segment": ["unknown"], "brand": ["NULL"]}
TASKS = {
    "click": {"label": "click", "unknown": ["n/k", "-1"]},
    "love": {"label": "stars", "positive_at_least": 4, "unknown": ["-9"]},
}


def _marked(tables: dict[str, list[dict[str, Any]]]) -> None:
    """Empty cells become markers, one per column; labels get a text and a number in turn."""
    for rows in tables.values():
        for row in rows:
            row.update({c: m for c, m in TEXTS.items() if c in row and row[c] == ""})
            if row.get("vector", None) == "":
                row["vector"] = "-"
    empty = [row for row in tables["log"] if row["click"] == ""]
    for k, row in enumerate(empty):
        row["click"] = ("n/k", -1, "-1.0")[k % 3]


@pytest.fixture(scope="module")
def marked(make_ads: Callable[..., Any]) -> Any:
    return make_ads(_marked, missing=MISSING, tasks=TASKS)


def test_markers_are_encoded_as_empty_cells(ads: Any, marked: Any) -> None:
    assert np.isnan(ads.raw.labels[:, 0]).any()
    for name in ("ids", "dense", "scenario", "labels"):
        np.testing.assert_array_equal(marked.cache.column(name), ads.cache.column(name), name)
    _, ours = marked.cache.stored(slice(0, ads.raw.rows))
    _, theirs = ads.cache.stored(slice(0, ads.raw.rows))
    for name, bag in theirs.items():
        np.testing.assert_array_equal(ours[name].values, bag.values, name)
        np.testing.assert_array_equal(ours[name].splits, bag.splits, name)


def test_new_rows_and_the_encoders_graph_know_the_markers(marked: Any, tmp_path: Path) -> None:
    cells = {"user_id": ["u0", "u1"], "item_id": ["i0", "-"], "tab": ["t0", "-"]}
    rows = {**cells, "hour": [3.0, -1.0], "brand": ["b0", "NULL"], "age": [20, -1]}
    table = pa.table({**rows, "tags": ["tag1|N/A", "-"]})
    pq.write_table(table, tmp_path / "rows.parquet")
    found = read_requests(marked.spec, marked.folder, tmp_path / "rows.parquet")
    assert found["brand"].to_pylist() == ["b0", None] and found["age"].to_pylist() == [20, None]
    assert found["hour"].to_pylist() == [3, None]
    assert found["tags"].to_pylist() == [["tag1", ""], []]
    # keys and the scenario have markers only if they are named
    assert found["item_id"].to_pylist() == ["i0", "-"] and found["tab"].to_pylist() == ["t0", "-"]

    fitted = FittedEncoding.load(marked.folder / "encoding")
    encoder = Encoder(marked.spec, fitted).only(["age", "level", "brand", "tags", "segment_brand"])
    ragged = tf.ragged.constant([["tag1", "N/A"], ["-"], ["tag1"], []])

    def encode(brand: list[str], age: list[float], level: list[int], tags: Any) -> Any:
        return tf.function(encoder)(
            {
                "brand": tf.constant(brand),
                "segment": tf.constant(["s0"] * 4),
                "age": tf.constant(age, tf.float32),
                "level": tf.constant(level, tf.int64),
                "tags": tags.with_row_splits_dtype(tf.int64),
            }
        )

    nan = float("nan")
    ours = encode(["NULL", "-", "b0", "N/A"], [-1, 20, -1, 3], [2, -1, 3, 0], ragged)
    plain = tf.ragged.constant([["tag1"], [], ["tag1"], []], dtype=tf.string)
    theirs = encode(["", "", "b0", ""], [nan, 20, nan, 3], [2, -1, 3, 0], plain)
    assert np.array_equal(ours["ids"], theirs["ids"])
    assert np.array_equal(ours["dense"], theirs["dense"])
    assert ours["bags"]["tags"][0].to_list() == theirs["bags"]["tags"][0].to_list()


CELLS = st.sampled_from(["", "-", "N/A", "3", "-1", "-1.0", "0.5", "7"])


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cells=st.lists(CELLS, min_size=1, max_size=8))
def test_a_reader_empties_markers_of_every_type(
    cells: list[str], tmp_path: Path, make_missing: Any
) -> None:
    text = pa.table({c: pa.array(cells) for c in ("number", "text", "list")})
    pq.write_table(text, tmp_path / "t.parquet")
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["number,text,list", *(f"{c},{c},{c}|{c}" for c in cells), ""]))
    missing = make_missing()
    kinds = {"number": "float", "text": "string"}
    gone = {"", "-", "N/A", "-1", "-1.0"}
    numbers = [None if c in gone else float(c) for c in cells]
    texts = [None if c in gone else c for c in cells]
    for file in (tmp_path / "t.parquet", path):
        found = read_table([file], kinds, missing=missing)  # type: ignore[arg-type]
        assert found.to_pydict() == {"number": numbers, "text": texts}
    lists = read_table([path], {"list": "strings"}, missing=missing)["list"].to_pylist()
    assert lists == [[c or "", c or ""] for c in (t or "" for t in texts)]
    # every cell is counted, under the marker it is
    for marker, spelt in (("-", {"-"}), ("N/A", {"N/A"}), ("-1", {"-1", "-1.0"})):
        held = sum(c in spelt for c in cells)
        assert missing.found["number", marker] == 2 * held
        assert missing.found["text", marker] == 2 * held
        assert missing.found["list", marker] == 2 * held


@pytest.fixture(scope="session")
def make_missing() -> Callable[[], MissingValues]:
    columns = ("number", "text", "list")
    spec = parse_spec(
        {
            "name": "m",
            "log": {"files": ["log.csv"]},
            "keys": {"user": "u", "item": "i", "time": "t"},
            "tasks": {"click": "click"},
            "split": {"by": "day", "train_until": 6, "valid_until": 7},
            "features": {c: {"owner": "context", "kind": "hashed"} for c in columns},
            "missing": ["-", "N/A", -1],
        }
    )
    return lambda: MissingValues(spec)


def test_numbers_and_records_have_markers_too(tmp_path: Path, make_missing: Any) -> None:
    table = pa.table({"number": pa.array([1, -1, 2], pa.int32()), "text": [1.5, -1.0, 2.0]})
    pq.write_table(table, tmp_path / "t.parquet")
    kinds: Any = {"number": "int", "text": "float"}
    found = read_table([tmp_path / "t.parquet"], kinds, missing=make_missing())
    assert found.to_pydict() == {"number": [1, None, 2], "text": [1.5, None, 2]}
    with tf.io.TFRecordWriter(str(tmp_path / "t.tfrecord")) as writer:
        for number, texts in ((b"4", [b"a", b"-"]), (b"N/A", [b"-"])):
            example = tf.train.Example()
            example.features.feature["number"].bytes_list.value.append(number)
            example.features.feature["list"].bytes_list.value.extend(texts)
            writer.write(example.SerializeToString())
    kinds = {"number": "float", "list": "strings"}
    found = read_table([tmp_path / "t.tfrecord"], kinds, missing=make_missing())
    assert found.to_pydict() == {"number": [4, None], "list": [["a", ""], [""]]}


def test_a_number_is_a_marker_in_the_file_where_it_is_one_in_the_graph(
    ads_spec: dict[str, Any], tmp_path: Path
) -> None:
    most = np.finfo(np.float64).max
    spec = parse_spec({**ads_spec, "missing": {"hour": [0.1, float(most)], "price": [-0.3]}})
    held = np.array([0.1, 0.1 + 1e-12, 0.2, -0.3, most, 3])
    for kind in (pa.float64(), pa.float32()):
        with np.errstate(over="ignore"):
            table = pa.table({"hour": pa.array(held.astype(kind.to_pandas_dtype()))})
        keep = np.isfinite(table["hour"].to_numpy())
        pq.write_table(table.filter(pa.array(keep)), tmp_path / "t.parquet")
        missing = MissingValues(spec)
        found = read_table([tmp_path / "t.parquet"], {"hour": "float"}, missing=missing)
        gone = [v is None for v in found["hour"].to_pylist()]
        assert gone == np.array([True, True, False, False, True, False])[keep].tolist()
        assert missing.found["hour", "0.1"] == 2
        with np.errstate(over="ignore"):
            numbers = tf.constant(held.astype(np.float32))
        markers = missing.of("hour")
        assert markers is not None
        missing_in_graph = markers.holds_number(numbers).numpy() | ~np.isfinite(numbers)
        assert np.array_equal(missing_in_graph[keep], gone)


def test_what_is_found_and_what_is_not_is_told(
    make_ads: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def some(tables: dict[str, list[dict[str, Any]]]) -> None:
        for k, row in enumerate(tables["users"]):
            row["segment"] = "unknown" if k < 3 else "s1"
        for k, row in enumerate(tables["log"]):
            row["click"] = -1 if k < 5 else k % 2
            row["stars"] = -1 if k % 10 == 0 else 5 - k % 2

    tasks = {**TASKS, "love": {"label": "stars", "positive_at_least": 4, "unknown": ["-2"]}}
    world = make_ads(some, missing={"*": ["??"], "segment": ["unknown", "none"]}, tasks=tasks)
    assert "'segment' 3 'unknown'" in caplog.text
    assert "'??' in no column, 'none' in no row of 'segment'" in caplog.text
    assert "'n/k' in no row of 'click'" in caplog.text
    assert "labels that are a number under `unknown`: 'click' (click) 5" in caplog.text
    assert "no label is one of the unknown values -2 in 'stars' (love)" in caplog.text
    rows = len(world.raw.split) - 40
    assert f"{rows // 10} of {rows} labels in 'stars' are below 0 (such as -1)" in caplog.text
    assert "`unknown: [-1]`" in caplog.text
    labels = world.raw.labels[40:]
    assert np.isnan(labels[:5, 0]).all() and np.isfinite(labels[5:, 0]).all()


def test_a_label_of_minus_one_asks_for_unknown(
    ads_files: Any, ads_spec: dict[str, Any], tmp_path: Path
) -> None:
    folder = ads_files(tmp_path, lambda t: [r.update(click=-1) for r in t["log"][:7]])
    with pytest.raises(UserError) as caught:
        load_raw(parse_spec(ads_spec), folder)
    assert "click: {label: click, unknown: [-1]}" in str(caught.value)
    assert "-1, in 7 of" in str(caught.value)
    tasks = {"click": {"label": "click", "unknown": [-1]}, "love": ads_spec["tasks"]["love"]}
    raw = load_raw(parse_spec({**ads_spec, "tasks": tasks}), folder)
    assert np.isnan(raw.labels[40:47, 0]).all()


def test_auxiliary_labels_have_unknown_values_too(
    ads_files: Any, ads_spec: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def change(tables: dict[str, list[dict[str, Any]]]) -> None:
        for k, row in enumerate(tables["history"][:9]):
            row["watched"] = ("n/k", -1, -2)[k % 3]

    folder = ads_files(tmp_path, change)
    label: dict[str, Any] = {"label": "click", "unknown": ["n/k", -1]}
    tasks = {**ads_spec["tasks"], "click": label}
    with pytest.raises(UserError, match="(?s)column 'watched' of task 'click'.*unknown: .-2"):
        load_raw(parse_spec({**ads_spec, "tasks": tasks}), folder)
    label["unknown"].append(-2)
    caplog.set_level(logging.WARNING)
    caplog.clear()
    labels = load_raw(parse_spec({**ads_spec, "tasks": tasks}), folder).labels[:40, 0]
    assert not caplog.messages  # each of them is in some label of the task
    assert np.isnan(labels).tolist() == [True] * 9 + [False] * 31


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ({"brnd": ["-"]}, "column 'brnd', which no feature reads.*Did you mean 'brand'"),
        ({"user_id": ["-"]}, "names the key 'user_id'"),
        ({"click": ["-"]}, "names the label column 'click'.*unknown"),
    ],
)
def test_markers_of_other_columns_are_refused(
    ads_spec: dict[str, Any], missing: Any, told: str
) -> None:
    with pytest.raises(UserError, match=f"(?s){told}"):
        parse_spec({**ads_spec, "missing": missing})


def test_a_scenario_has_markers_where_it_is_named(
    ads_files: Any, ads_spec: dict[str, Any], tmp_path: Path
) -> None:
    folder = ads_files(tmp_path, lambda t: [r.update(tab="-") for r in t["log"][:3]])

    def tabs(**over: Any) -> list[str | None]:
        spec: FeatureSpec = parse_spec({**ads_spec, **over})
        return list(load_raw(spec, folder).columns["tab"].to_pylist()[40:43])

    assert tabs(missing=["-"]) == ["-"] * 3
    assert tabs(missing={"tab": ["-"]}) == [None] * 3
