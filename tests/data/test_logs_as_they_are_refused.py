"""What is refused of logs without a time or header, joined keys, and vectors in columns."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from lfm4ads_tf.data.raw import load_raw
from lfm4ads_tf.data.vectors import settle
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.spec_file import load_spec, parse_spec

SPEC: dict[str, Any] = {
    "name": "tiny",
    "log": {"files": ["log.csv"], "user_columns": ["age"]},
    "keys": {"user": "user", "item": "item", "time": "at"},
    "tasks": {"click": "click"},
    "split": {"per": "all", "by": "time", "fractions": [0.5, 0.25, 0.25]},
    "period": {"blocks": 2},
    "features": {"user": {"owner": "user", "kind": "hashed"}},
}
LOG = "user,item,at,click,age,v_1,v_2\n" + "".join(f"a,x{n},{n},{n % 2},3,1,2\n" for n in range(8))


def refused(folder: Path, *expected: str, **over: Any) -> None:
    """One message that says all that is expected."""
    raw = copy.deepcopy(SPEC)
    for section, values in over.items():
        raw[section] = {**raw.get(section, {}), **values}
    if not (folder / "log.csv").exists():
        (folder / "log.csv").write_text(LOG)
    with pytest.raises(UserError) as caught:
        spec = parse_spec(raw)
        load_raw(settle(spec, folder), folder)
    message = str(caught.value)
    for text in expected:
        assert text in message, message


def vector(columns: Any, **more: Any) -> dict[str, Any]:
    return {"v": {"owner": "context", "kind": "pretrained", "columns": columns, **more}}


# --- times --------------------------------------------------------------------------------------


def test_a_log_without_a_time_has_no_periods_of_a_column(tmp_path: Path) -> None:
    raw = {**SPEC, "keys": {**SPEC["keys"], "time": "none"}, "period": {"by": "at"}}
    with pytest.raises(UserError, match="keys.time: none, period.by: at"):
        parse_spec(raw)


def test_no_time_is_said_by_none_alone(tmp_path: Path) -> None:
    refused(tmp_path, "a log without a time has `time: none`", keys={"time": None})
    refused(tmp_path, "`shuffle` orders a log without a time", keys={"shuffle": 1})


def test_a_column_called_none(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(LOG.replace("at,", "none,", 1))
    refused(tmp_path, "has a column 'none'", keys={"time": "none"})


# --- names of columns ---------------------------------------------------------------------------


@pytest.mark.parametrize("names", [7, 9])
def test_another_number_of_names_than_columns(tmp_path: Path, names: int) -> None:
    (tmp_path / "log.csv").write_text("a,x,1,0,3,1,2,3\n" * 4)
    columns = ["user", "item", "at", "click", *map(str, range(names - 4))]
    expected = f"`columns` names {names} columns, but the first line of"
    refused(tmp_path, expected, "log.csv' has 8", log={"columns": columns})


def test_a_row_of_another_length_is_counted_from_the_first_line(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("a,x,1,0\nb,x,2,1\nb,x\n")
    columns = ["user", "item", "at", "click"]
    expected = "data row 3 has 2 fields, but `columns` names 4"
    refused(tmp_path, expected, log={"columns": columns, "user_columns": []})


def test_a_header_line_beside_the_names_is_no_row(tmp_path: Path) -> None:
    columns = LOG.partition("\n")[0].split(",")
    refused(tmp_path, "holds the names of the columns", "log.csv", log={"columns": columns})


def test_names_for_a_file_with_names_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "log.parquet").write_bytes(b"PAR1")
    over = {"files": ["log.parquet"], "columns": ["user"]}
    refused(tmp_path, "a file of 'log' is no CSV file", "log.parquet", log=over)


# --- files --------------------------------------------------------------------------------------


def test_a_file_of_two_scenarios(tmp_path: Path) -> None:
    keys = {"scenario": "kind"}
    files = {"music": "log.csv", "book": "log.*"}
    refused(tmp_path, "log.csv' is named twice", "log.csv, log.*", log={"files": files}, keys=keys)


def test_a_file_that_two_patterns_match(tmp_path: Path) -> None:
    refused(tmp_path, "log.csv' is named twice", log={"files": ["log.csv", "*.csv"]})


def test_files_of_scenarios_without_a_scenario_key(tmp_path: Path) -> None:
    refused(tmp_path, "no scenario key", "log.files of music", log={"files": {"music": "log.csv"}})


def test_files_of_scenarios_that_hold_the_scenario(tmp_path: Path) -> None:
    refused(
        tmp_path,
        "gives the scenario 'age' of each file",
        log={"files": {"music": "log.csv"}},
        keys={"scenario": "age"},
    )


def test_two_files_of_one_scenario_name(tmp_path: Path) -> None:
    """YAML keeps the last of two equal keys: the first file's rows would be lost."""
    path = tmp_path / "spec.yaml"
    path.write_text("name: x\nlog:\n  files:\n    music: a.csv\n    'music': b.csv\n")
    with pytest.raises(UserError, match=r"gives the key 'log\.files\.music' twice") as caught:
        load_spec(path)
    assert "line 4 and line 5" in str(caught.value)


# --- joined keys --------------------------------------------------------------------------------


def test_a_joined_key_with_a_missing_part_names_file_and_row(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(LOG)
    (tmp_path / "more.csv").write_text(LOG.replace("a,x2,2,0,3,", "a,x2,2,0,,"))
    refused(
        tmp_path,
        "Column 'age' is a part of the key 'user+age' and is empty in data row 3 of",
        "more.csv'",
        log={"files": ["log.csv", "more.csv"]},
        keys={"user": ["user", "age"]},
    )


def test_a_part_that_is_no_column_a_label_or_held_already(tmp_path: Path) -> None:
    refused(tmp_path, "Column 'usr' is missing", keys={"user": ["usr", "age"]})
    refused(tmp_path, "`keys.user.1` names the column 'click'", keys={"user": ["user", "click"]})
    refused(tmp_path, "must list two or more different columns", keys={"user": ["user"]})
    (tmp_path / "log.csv").write_text(LOG.replace("v_1", "user+age"))
    refused(
        tmp_path,
        "The column 'user+age' would stand for two things",
        keys={"user": ["user", "age"]},
    )


def test_a_part_has_the_side_of_its_key(tmp_path: Path) -> None:
    refused(
        tmp_path,
        "owned by the item but reads 'user', which describes the user",
        keys={"user": ["user", "age"]},
        features={"item_user": {"owner": "item", "kind": "hashed", "column": "user"}},
    )


# --- vectors ------------------------------------------------------------------------------------


def test_a_pattern_that_matches_no_column(tmp_path: Path) -> None:
    refused(tmp_path, "No column matches 'w_*'", "v_1, v_2", features=vector("w_*"))


def test_another_number_of_columns_than_the_size(tmp_path: Path) -> None:
    refused(tmp_path, "3 numbers by its `size`", "v_1, v_2", features=vector("v_*", size=3))


def test_a_column_of_a_list_that_is_missing(tmp_path: Path) -> None:
    refused(tmp_path, "Did you mean 'v_1'", features=vector(["v_1x", "v_2"]))


@pytest.mark.parametrize("pattern, column", [("*i*k", "click"), ("it*", "item"), ("a?", "at")])
def test_a_vector_with_a_label_a_key_or_the_time(tmp_path: Path, pattern: str, column: str) -> None:
    refused(tmp_path, f"would hold the column '{column}'", features=vector(pattern))


def test_a_vector_of_the_other_side(tmp_path: Path) -> None:
    features = vector("ag*")
    features["v"]["owner"] = "item"
    refused(tmp_path, "holds 'age', which describes the user", features=features)
    features = vector("v_*")
    features["v"]["owner"] = "user"  # columns of a flat file describe the impression
    refused(tmp_path, "list it under `log.user_columns`", features=features)


def test_a_vector_called_as_a_column(tmp_path: Path) -> None:
    features = {"age": vector("v_*")["v"]}
    refused(tmp_path, "The column 'age' would stand for two things", features=features)
    (tmp_path / "users.csv").write_text("user,v\na,1\n")
    tables = {"users": {"files": ["users.csv"], "key": "user", "owner": "user"}}
    refused(tmp_path, "'users' has a column of this name", features=vector("v_*"), tables=tables)


def test_a_cell_of_a_vector_that_is_no_number(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(LOG.replace("3,1,2\na,x1", "3,1,two\na,x1"))
    features = vector("v_*")
    refused(tmp_path, "Column 'v_2' is not a number in data row 1", features=features)


def test_a_vector_of_vectors_and_columns(tmp_path: Path) -> None:
    refused(tmp_path, "not both", features=vector("v_*", column="age"))
    refused(tmp_path, "`size` is 3, but `columns` are 2", features=vector(["v_1", "v_2"], size=3))
    refused(tmp_path, "give the vector's `size`", features=vector(None))
