"""Joined keys: different parts give different keys, and one text in every container."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from lfm4ads_tf.features.joined_keys import _parts_of, joined_text, joined_texts
from lfm4ads_tf.features.vector_columns import matching

PARTS = st.lists(st.text("+\\a1", min_size=1, max_size=5), min_size=2, max_size=3)


@given(PARTS)
def test_parts_come_back(parts: list[str]) -> None:
    assert _parts_of(joined_text(parts)) == parts


@given(st.lists(st.lists(st.text("+\\a|", max_size=4), min_size=2, max_size=2), min_size=1))
def test_rows_are_joined_as_one_is(rows: list[list[str]]) -> None:
    columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
    assert joined_texts(columns).to_pylist() == [joined_text(row) for row in rows]


def test_a_missing_part_leaves_no_key() -> None:
    parts = [pa.array(["a", None, "b"]), pa.array(["1", "2", None])]
    assert joined_texts(parts).to_pylist() == ["a+1", None, None]


def test_columns_in_natural_order() -> None:
    names = ["x_10", "x_9", "x_1_b", "x_1_a10", "x_1_a9", "y_1", "x_"]
    assert matching("x_*", names) == ["x_", "x_1_a9", "x_1_a10", "x_1_b", "x_9", "x_10"]
