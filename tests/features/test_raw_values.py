from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features import raw_values

LISTS = st.lists(st.none() | st.lists(st.sampled_from(["a", "", "ü"]), max_size=3), max_size=8)


@given(LISTS, st.integers(0, 8), st.integers(0, 8))
def test_both_list_containers_slice_alike(lists: list[Any], start: int, stop: int) -> None:
    arrow = pa.array(lists, pa.list_(pa.string()))
    flat = [v for row in lists for v in row or []]
    offsets = np.cumsum([0, *(len(row or []) for row in lists)])
    expected = [row or [] for row in lists[start:stop]]
    for column in (arrow, (np.array(flat, object), offsets)):
        part = raw_values.slice_rows(column, slice(start, stop))
        assert raw_values.row_count(part) == len(expected)
        values, splits = raw_values.lists(part)
        texts = raw_values.texts(values).to_pylist()
        assert [texts[a:b] for a, b in zip(splits[:-1], splits[1:], strict=True)] == expected


@pytest.mark.parametrize(
    "column",
    [
        np.array([0.0, 3.0, np.nan, 2.5, -4.0, 1e300, np.inf]),
        pa.array([0.0, 3.0, None, 2.5, -4.0, 1e300, float("inf")]),
    ],
)
def test_integers(column: Any) -> None:
    assert raw_values.integers(column).tolist() == [0, 3, -1, -1, -1, -1, -1]


def test_integers_keep_int64() -> None:
    big = 2**62 + 1
    assert raw_values.integers(pa.array([big, None])).tolist() == [big, -1]
    assert raw_values.integers(np.array([big, 5])).tolist() == [big, 5]


def test_integers_beyond_int64_are_no_ids() -> None:
    for column in (
        np.array([2**64 - 1, 2**63, 5], np.uint64),
        pa.array([2**64 - 1, 2**63, 5], pa.uint64()),
    ):
        assert raw_values.integers(column).tolist() == [-1, -1, 5]
    assert raw_values.integers(pa.array([7, None], pa.uint32())).tolist() == [7, -1]


def test_numbers_have_the_texts_that_files_give_them() -> None:
    assert raw_values.texts(np.array([1e10, 7.0, np.nan])).to_pylist() == ["10000000000", "7", ""]
    large = np.array([2**64 - 1, 10**30, None], object)
    assert raw_values.texts(large).to_pylist() == [str(2**64 - 1), str(10**30), ""]
    # Texts stay as a served model would read them.
    assert raw_values.texts(pa.array(["7.0", "True"])).to_pylist() == ["7.0", "True"]


def test_texts_and_numbers() -> None:
    for column in (np.array(["ü", None, ""], object), pa.array(["ü", None, ""])):
        assert raw_values.texts(column).to_pylist() == ["ü", "", ""]
    np.testing.assert_array_equal(raw_values.numbers(pa.array([1, None])), [1.0, np.nan])
    chunked = pa.chunked_array([["a"], ["b"]])
    assert raw_values.column_of({"c": chunked}, "c").to_pylist() == ["a", "b"]


def test_vectors() -> None:
    lists = pa.array([[1.0, 2.0], None, [3.0, 4.0]])
    assert raw_values.vectors(lists, 2, "v").tolist() == [[1, 2], [0, 0], [3, 4]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_a_vector_is_finite_or_missing(bad: float) -> None:
    with pytest.raises(UserError, match=r"'v' holds NaN, infinity .*\n.* in row 1\n.*leave it out"):
        raw_values.vectors(np.array([[1.0, 2.0], [bad, 4.0]]), 2, "v")
