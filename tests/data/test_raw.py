from __future__ import annotations

import copy
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm4ads_tf.data.raw import all_source_files, load_raw
from lfm4ads_tf.data.splits import AUXILIARY, TEST, TRAIN, VALID
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.spec_file import parse_spec

SPEC: dict[str, Any] = {
    "name": "tiny",
    "log": {"files": ["log_*.csv*"]},
    "tables": {
        "users": {"files": ["users.csv"], "key": "uid", "owner": "user"},
        "items": {"files": ["items.csv"], "key": "item", "owner": "item"},
    },
    "auxiliary": {
        "files": ["past.csv"],
        "optional": True,
        "scenario": "past",
        "order": "n",
        "labels": {"click": "seen"},
    },
    "keys": {"user": "user", "item": "item", "time": "ms", "time_unit": "ms", "scenario": "tab"},
    "tasks": {"click": "clicked", "love": {"label": "stars", "positive_at_least": 4}},
    "split": {"by": "day", "train_until": 2, "valid_until": 3},
    "period": {"by": "day"},
    "features": {
        "user": {"owner": "user", "kind": "vocabulary"},
        "city": {"owner": "user", "kind": "hashed"},
        "item": {"owner": "item", "kind": "vocabulary"},
        "price": {"owner": "item", "kind": "numeric", "standardize": False},
    },
}
FILES = {
    "log_1.csv": "user,item,ms,tab,day,clicked,stars\nb,y,3000,t1,2,1,\na,x,1000,t0,1,0,4\n",
    "log_2.csv": "user,item,ms,tab,day,clicked,stars\na,z,4000,t0,3,,5\nc,x,1000,t1,1,1,3.5\n",
    "users.csv": "uid,city\na,Rom\nb,\n",
    "items.csv": "item,price\nx,1.5\ny,2\n",
    "past.csv": "user,item,n,seen\nq,x,2,1\na,y,1,0\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def spec_of(**over: Any) -> Any:
    return parse_spec({**copy.deepcopy(SPEC), **over})


def test_rows_are_joined_and_ordered_by_time_after_the_auxiliary_rows(folder: Path) -> None:
    raw = load_raw(spec_of(), folder)
    assert raw.rows == 6
    assert raw.columns["user"].to_pylist() == ["a", "q", "a", "c", "b", "a"]
    assert raw.columns["item"].to_pylist() == ["y", "x", "x", "x", "y", "z"]
    # Rows a and c share a time: they keep the order of the files.
    assert raw.time.tolist() == [1.0, 1.0, 1.0, 1.0, 3.0, 4.0]
    assert raw.split.tolist() == [AUXILIARY, AUXILIARY, TRAIN, TRAIN, VALID, TEST]
    assert raw.period.tolist() == [-1, -1, 0, 0, 1, 2]
    assert raw.period_values == ["1", "2", "3"]
    assert raw.columns["tab"].to_pylist() == ["past", "past", "t0", "t1", "t1", "t0"]
    # A key without a side row, and an empty cell, are missing.
    assert raw.columns["city"].to_pylist() == ["Rom", None, "Rom", None, None, "Rom"]
    assert raw.columns["price"].to_pylist() == [2.0, 1.5, 1.5, 1.5, 2.0, None]
    nan = np.nan
    expected = [[0, nan], [1, nan], [0, 1], [1, 0], [1, nan], [nan, 1]]
    np.testing.assert_array_equal(raw.labels, np.array(expected, np.float32))
    assert raw.signals.shape == (6, 0)
    assert raw.best_possible is None


def test_gzip_and_optional_auxiliary_file(folder: Path) -> None:
    plain = load_raw(spec_of(), folder)
    (folder / "log_2.csv").rename(folder / "text")
    (folder / "log_2.csv.gz").write_bytes(gzip.compress((folder / "text").read_bytes()))
    (folder / "past.csv").unlink()
    raw = load_raw(spec_of(), folder)
    assert raw.rows == 4
    for name, column in raw.columns.items():
        assert column.equals(plain.columns[name].slice(2)), name
    assert "past.csv" not in [p.name for p in all_source_files(spec_of(), folder)]


def test_seconds_are_taken_as_they_are(folder: Path) -> None:
    keys = {**SPEC["keys"], "time_unit": "s"}
    assert load_raw(spec_of(keys=keys), folder).time[-1] == 4000.0


def test_signals_and_best_possible(folder: Path) -> None:
    for name in ("log_1.csv", "log_2.csv"):
        lines = (folder / name).read_text().splitlines()
        more = [lines[0] + ",p", *[f"{line},0.{k + 1}" for k, line in enumerate(lines[1:])]]
        (folder / name).write_text("\n".join(more) + "\n")
    spec = spec_of(
        tasks={"click": "clicked"},
        signals={"love": {"label": "stars", "positive_at_least": 4}},
        best_possible={"click": "p"},
    )
    raw = load_raw(spec, folder)
    np.testing.assert_array_equal(
        raw.signals[:, 0], np.array([np.nan, np.nan, 1, 0, np.nan, 1], np.float32)
    )
    assert raw.best_possible is not None
    np.testing.assert_allclose(raw.best_possible[:, 0], [np.nan, np.nan, 0.2, 0.2, 0.1, 0.1])


def replace(folder: Path, name: str, old: str, new: str) -> None:
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("log_1.csv", ",1,\n", ",2,\n", "task 'click' must hold 0, 1 or nothing"),
        (
            "past.csv",
            "1,0\n",
            "1,7\n",
            "Received: 7, in 1 of 2 rows, the first is data row 2 of '{}past.csv'",
        ),
        ("users.csv", "b,\n", "b,\na,Bonn\n", "more than one row per 'uid'"),
        ("users.csv", "uid,city", "uid,town", "No table has the column 'city'"),
        ("log_1.csv", "b,y,3000", "b,y,", "the first is data row 1 of '{}log_1.csv'"),
        ("log_2.csv", "c,x,1000", "c,x,", "the first is data row 2 of '{}log_2.csv'"),
        ("log_1.csv", "t1,2,1", "t1,,1", "The column 'day' orders the log"),
        ("log_1.csv", "b,y", ",y", "key column 'user' is empty in data row 1 of '{}log_1.csv'"),
        ("log_2.csv", "c,x", "c,", "key column 'item' is empty in data row 2 of '{}log_2.csv'"),
        # the first row in time order, but the second one of the second file
        (
            "log_2.csv",
            "1,1,3.5",
            "1,7,3.5",
            "Received: 7, in 1 of 4 rows, the first is data row 2 of '{}log_2.csv'",
        ),
        ("log_1.csv", "ms,tab", "ns,tab", "'ms'"),
        ("past.csv", "q,x", ",x", "key column 'user' is empty in data row 1 of '{}past.csv'"),
        ("items.csv", "x,1.5", "x,cheap", "cheap"),
    ],
)
def test_what_a_user_can_mend_is_named(
    folder: Path, name: str, old: str, new: str, message: str
) -> None:
    replace(folder, name, old, new)
    with pytest.raises(UserError) as error:
        load_raw(spec_of(), folder)
    assert message.format(f"{folder}/") in str(error.value)


def test_nearest_column_is_named(folder: Path) -> None:
    replace(folder, "users.csv", "uid,city", "uid,cityy")
    with pytest.raises(UserError, match="Did you mean 'cityy'"):
        load_raw(spec_of(), folder)


def test_a_side_row_without_a_key_is_ignored(folder: Path) -> None:
    replace(folder, "users.csv", "b,\n", "b,\n,Bonn\n")
    assert load_raw(spec_of(), folder).columns["city"].to_pylist().count("Bonn") == 0


def test_missing_period_is_refused(folder: Path) -> None:
    split = {"per": "all", "by": "time", "fractions": [0.5, 0.25, 0.25]}
    replace(folder, "log_1.csv", "t1,2,1", "t1,,1")
    with pytest.raises(UserError, match="The column 'day' orders the log"):
        load_raw(spec_of(split=split), folder)


def test_missing_files_are_named(folder: Path) -> None:
    (folder / "users.csv").unlink()
    with pytest.raises(UserError, match="No file matches 'users.csv'"):
        load_raw(spec_of(), folder)


def test_owner_checks_that_need_the_headers(folder: Path) -> None:
    price = {"owner": "user", "kind": "numeric", "column": "price"}
    with pytest.raises(UserError, match="owned by the user but reads 'price'.*the item"):
        load_raw(spec_of(features={**SPEC["features"], "price": price}), folder)
    device = {"owner": "user", "kind": "hashed", "column": "device"}
    for name in ("log_1.csv", "log_2.csv"):
        lines = (folder / name).read_text().splitlines()
        (folder / name).write_text(
            "\n".join([lines[0] + ",device", *[x + ",m" for x in lines[1:]]])
        )
    features = {**SPEC["features"], "device": device}
    with pytest.raises(UserError, match="log.user_columns"):
        load_raw(spec_of(features=features), folder)
    log = {**SPEC["log"], "user_columns": ["device"]}
    raw = load_raw(spec_of(features=features, log=log), folder)
    assert raw.columns["device"].to_pylist()[2:] == ["m"] * 4


def test_a_log_column_that_the_spec_names_is_not_taken_from_a_side_table(folder: Path) -> None:
    """The spec says that the log's `grade` describes the item; the users' table has one too."""
    for name in ("log_1.csv", "log_2.csv"):
        lines = (folder / name).read_text().splitlines()
        (folder / name).write_text("\n".join([lines[0] + ",grade", *[x + ",m" for x in lines[1:]]]))
    (folder / "users.csv").write_text("uid,city,grade\na,Rom,u\nb,,u\nc,,u\n")
    features = {**SPEC["features"], "grade": {"owner": "item", "kind": "hashed"}}
    raw = load_raw(
        spec_of(features=features, log={**SPEC["log"], "item_columns": ["grade"]}), folder
    )
    assert raw.columns["grade"].to_pylist()[2:] == ["m"] * 4


def test_a_feature_may_read_the_side_tables_own_key(folder: Path) -> None:
    features = {**SPEC["features"], "account": {"owner": "user", "kind": "hashed", "column": "uid"}}
    raw = load_raw(spec_of(features=features), folder)
    assert raw.columns["uid"].to_pylist() == ["a", None, "a", None, "b", "a"]


def test_a_clock_that_disagrees_with_the_period_does_not_reorder_periods(folder: Path) -> None:
    replace(folder, "log_1.csv", "a,x,1000,t0,1", "a,x,9000,t0,1")
    raw = load_raw(spec_of(), folder)
    assert raw.period.tolist() == [-1, -1, 0, 0, 1, 2]
    assert raw.time.tolist() == [1.0, 1.0, 1.0, 9.0, 3.0, 4.0]
