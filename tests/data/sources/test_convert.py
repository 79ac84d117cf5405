"""convert_column: what each type accepts and the row that an error names."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm4ads_tf.data.sources.convert import ColumnType, convert_column
from lfm4ads_tf.errors import UserError


def convert(array: pa.Array | pa.ChunkedArray, kind: ColumnType) -> list[object]:
    chunked = array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])
    return convert_column(
        chunked, kind, path=Path("log.csv"), name="col", list_separator="|"
    ).to_pylist()


@given(
    st.lists(
        st.integers(-(2**63), 2**63 - 1).map(str)
        | st.integers(-999, 999).map(lambda i: f" {i:+d} ")
        | st.integers(-999, 999).map(lambda i: f"{i}.0")
        | st.integers(1, 9).map(lambda i: f"{i}e3"),
        min_size=1,
    )
)
def test_integer_text_equals_python(texts: list[str]) -> None:
    expected = [int(Decimal(text.strip())) for text in texts]
    assert convert(pa.array(texts), "int") == expected


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_float_text_equals_python(values: list[float]) -> None:
    assert convert(pa.array([repr(v) for v in values]), "float") == values
    assert convert(pa.array([f" +{abs(v)!r}" for v in values]), "float") == [abs(v) for v in values]


@pytest.mark.parametrize("kind", ["int", "float", "floats"])
@pytest.mark.parametrize("text", ["abc", "1,5", "1_0", "0x10", "١", "--1", "1e", "True"])
def test_non_numeric_text_names_the_row(kind: ColumnType, text: str) -> None:
    column = pa.chunked_array([pa.array(["1", "2"]), pa.array(["", text, "zzz"])])
    with pytest.raises(UserError) as error:
        convert(column, kind)
    message = str(error.value)
    assert "Column 'col'" in message and "data row 4 of 'log.csv'" in message
    assert f"Received: {text!r}" in message


@pytest.mark.parametrize(
    "text", ["1.5", "9223372036854775808", "1e19", "1e999999999", "-9223372036854775809"]
)
def test_text_that_is_no_64_bit_integer(text: str) -> None:
    with pytest.raises(UserError, match="is not a 64-bit integer in data row 2"):
        convert(pa.array(["1", text]), "int")


@pytest.mark.parametrize("text", ["inf", "-Infinity", "1e999", " INF "])
@pytest.mark.parametrize("kind", ["float", "floats"])
def test_infinite_text(text: str, kind: ColumnType) -> None:
    with pytest.raises(UserError, match="is infinite in data row 2"):
        convert(pa.array(["1", text]), kind)


def test_infinite_number() -> None:
    with pytest.raises(UserError, match="is infinite in data row 2"):
        convert(pa.array([1.0, float("inf")]), "float")
    with pytest.raises(UserError, match="64-bit integer in data row 1"):
        convert(pa.array([float("-inf")]), "int")


def test_strings_of_other_types() -> None:
    assert convert(pa.array([1, None, 30]), "string") == ["1", None, "30"]
    assert convert(pa.array([1.0, 0.5, float("nan")]), "string") == ["1", "0.5", None]
    assert convert(pa.array([0.1], pa.float32()), "string") == ["0.1"]
    assert convert(pa.array(["a", "", None]).dictionary_encode(), "string") == ["a", None, None]
    assert convert(pa.array(["a"], pa.large_string()), "string") == ["a"]
    assert convert(pa.array([b"a", b"", None]), "string") == ["a", None, None]
    assert convert(pa.nulls(2), "string") == [None, None]
    assert convert(pa.array([datetime.date(2022, 5, 1)]), "string") == ["2022-05-01"]


def test_numbers_of_other_types() -> None:
    assert convert(pa.array([True, None, False]), "int") == [1, None, 0]
    assert convert(pa.array([1.0, float("nan"), 2.0**60]), "int") == [1, None, 2**60]
    assert convert(pa.array([2**60 + 1]), "int") == [2**60 + 1]
    assert convert(pa.array([0.5, 1.5], pa.float32()), "float") == [0.5, 1.5]
    assert convert(pa.array([Decimal("1.25"), None]), "float") == [1.25, None]
    assert convert(pa.nulls(1), "float") == [None]


def test_stored_numbers_that_are_no_integers() -> None:
    with pytest.raises(UserError, match="64-bit integer in data row 3"):
        convert(pa.array([1.0, None, 2.5]), "int")
    with pytest.raises(UserError, match="64-bit integer in data row 2"):
        convert(pa.array([1, 2**63], pa.uint64()), "int")


@pytest.mark.parametrize("kind", ["int", "float", "floats"])
def test_times_and_structures_are_refused(kind: ColumnType) -> None:
    for array in (
        pa.array([datetime.datetime(2022, 5, 1)]),
        pa.array([{"a": 1}]),
    ):
        with pytest.raises(UserError, match="Column 'col' of 'log.csv' cannot be read as"):
            convert(array, kind)


def test_lists() -> None:
    assert convert(pa.array(["a|b", "", None, "a||"]), "strings") == [
        ["a", "b"],
        [],
        [],
        ["a", "", ""],
    ]
    assert convert(pa.array([["a"], None, [], ["b", None]]), "strings") == [
        ["a"],
        [],
        [],
        ["b", ""],
    ]
    assert convert(pa.array([[1, 2], None, [3]]), "floats") == [[1.0, 2.0], [], [3.0]]
    assert convert(pa.array([[1, 2], [3, 4]]), "strings") == [["1", "2"], ["3", "4"]]
    fixed = pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2))
    assert convert(fixed, "floats") == [[1.0, 2.0], [], [3.0, 4.0]]
    assert convert(fixed.slice(1), "floats") == [[], [3.0, 4.0]]
    assert convert(pa.array(["1|2.5", "3"]), "floats") == [[1.0, 2.5], [3.0]]
    assert convert(pa.array([7, None]), "strings") == [["7"], []]
    assert convert(pa.array([7, None, 8]), "floats") == [[7.0], [], [8.0]]


def test_missing_number_in_a_list() -> None:
    for array in (pa.array(["1|2", "3||4"]), pa.array([[1.0, 2.0], [3.0, None]])):
        with pytest.raises(UserError, match="missing number inside a list in data row 2"):
            convert(array, "floats")


def test_bad_element_names_its_row() -> None:
    with pytest.raises(UserError, match="is not a number in data row 3"):
        convert(pa.array(["1|2|3", "4", "5|x"]), "floats")


def test_lists_where_one_value_is_expected() -> None:
    assert convert(pa.array([[1], [], None, [4]]), "int") == [1, None, None, 4]
    with pytest.raises(UserError, match="holds 2 values where one is expected in data row 2"):
        convert(pa.array([[1], [2, 3]]), "int")


def test_bytes_that_are_not_utf8() -> None:
    with pytest.raises(UserError, match="is not UTF-8 text in data row 2"):
        convert(pa.array([b"ok", b"\xff"]), "string")
    with pytest.raises(UserError, match="is not UTF-8 text in data row 2"):
        convert(pa.array([[b"ok"], [b"a", b"\xff"]]), "strings")
