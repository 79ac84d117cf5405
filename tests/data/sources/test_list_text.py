"""Printed lists in cells: those of Python and JSON are read, what only looks like one is not."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm4ads_tf.data.sources import read_table
from lfm4ads_tf.errors import UserError

NUMBER = st.integers(-(10**6), 10**6)
LISTS = st.one_of(
    st.lists(st.lists(of, max_size=4), min_size=1, max_size=5)
    for of in (st.text(max_size=5), NUMBER, st.floats(allow_nan=False, allow_infinity=False))
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lists")


def lists_of(folder: Path, cells: list[Any], kind: Any = "strings", **more: Any) -> list[Any]:
    """The cells of a text column as lists."""
    pq.write_table(pa.table({"x": cells}), folder / "t.parquet")
    return list(read_table([folder / "t.parquet"], {"x": kind}, **more)["x"].to_pylist())


@given(lists=LISTS, show=st.sampled_from([repr, json.dumps, lambda v: f"  {json.dumps(v)}\n"]))
def test_a_printed_list_is_the_list(folder: Path, lists: list[list[Any]], show: Any) -> None:
    printed, stored = [show(of) for of in lists], lists
    assert lists_of(folder, printed) == lists_of(folder, stored)
    if not any(isinstance(value, str) for of in lists for value in of):
        assert lists_of(folder, printed, "floats") == lists_of(folder, stored, "floats")


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["('a', 'b')", "('c',)"], [["a", "b"], ["c"]]),
        (["{'b', 'a'}"], [["b", "a"]]),
        ([["['a', 'b']"], [], ["[]"]], [["a", "b"], [], []]),  # one text in a record
        ([["['a', 'b']"], ["['c']", "d"]], [["['a', 'b']"], ["['c']", "d"]]),
        (["[]", None, "", "['a']"], [[], [], [], ["a"]]),
        (["['a', None]", "[1]"], [["a", ""], ["1"]]),
        (["[True, False]", "[true]"], [["true", "false"], ["true"]]),
        (["['a|b']"], [["a|b"]]),
        (["['caf\\xe9', \"it's\"]"], [["café", "it's"]]),
        # text as before: some values in parentheses, in brackets beside others, joined ones
        (["(none)", "(a, b)"], [["(none)"], ["(a, b)"]]),
        (["[promo]", "a|[b]"], [["[promo]"], ["a", "[b]"]]),
        (["[a]|[b]"], [["[a]", "[b]"]]),
        (["{a,b}"], [["{a,b}"]]),
    ],
)
def test_what_is_read(folder: Path, cells: list[str], expected: list[list[str]]) -> None:
    found = [
        [v.lower() if v in ("True", "False") else v for v in of] for of in lists_of(folder, cells)
    ]
    assert found == expected


@pytest.mark.parametrize(
    ("cells", "row"),
    [
        (["['a']", "b"], 2),
        (["a|b", "[]"], 1),
        (["[Action, Comedy]"], 1),
        (["['a' 'b']"], 1),  # NumPy prints it so, and Python reads it as 'ab'
        (["['a']", "['b'"], 2),
        (["[['a']]"], 1),
        (['["a"]', '[{"b": 1}]'], 2),
        (["['\\d']"], 1),
        (["[1]", None, "[0.5 0.25]"], 3),
        (["[0x10]"], 1),
    ],
)
@pytest.mark.parametrize("separator", ["|", ","])
def test_what_is_refused(folder: Path, cells: list[str], row: int, separator: str) -> None:
    match = rf"'x' holds lists with brackets[\s\S]* in data row {row} of [\s\S]*list_separator"
    with pytest.raises(UserError, match=match):
        lists_of(folder, cells, list_separator=separator)


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ([["a,b", "c"], ["d;e,f", None, ""]], "none of its 3 values.*',' is in 2 .*';' is in 1 "),
        ([["a b", "c\td"]], "none of its 2 values.*a tab is in 1 of them, a space is in 1 of them"),
        ([["a,b", "c"], ["d|e"]], None),
        ([["a", "b"]], None),
        ([["['a,b']"]], None),
        ([[["a,b"]]], None),
    ],
)
def test_another_separator_is_told_over_all_files(
    folder: Path, caplog: pytest.LogCaptureFixture, parts: list[list[Any]], told: str | None
) -> None:
    paths = [folder / f"p{k}.parquet" for k in range(len(parts))]
    for path, cells in zip(paths, parts, strict=True):
        pq.write_table(pa.table({"x": cells}), path)
    with caplog.at_level(logging.WARNING):
        read_table(paths, {"x": "strings"})
    if told is None:
        assert not caplog.records
    else:
        (record,) = caplog.records
        assert re.search(told, record.getMessage())
