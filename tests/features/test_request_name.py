"""Names of inputs in a Predict request."""

from __future__ import annotations

import keyword

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.request_name import request_name, request_names


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("user_id", "user_id"),
        ("s.count", "s_dot_count"),
        ("CR_user@cross_2", "CR_user_at_cross_2"),
        ("1st", "x1st"),
        ("_private", "x_private"),
        ("class", "class_"),
        ("self", "self_"),
        ("größe", "gr_uf6__udf_e"),
        ("", "x"),
    ],
)
def test_known_names(column: str, name: str) -> None:
    assert request_name(column) == name


@given(st.text(max_size=8))
def test_every_name_is_an_ascii_identifier_that_starts_with_a_letter(column: str) -> None:
    name = request_name(column)
    assert name.isidentifier() and name.isascii() and name[0].isalpha()
    assert not keyword.iskeyword(name)


@pytest.mark.parametrize("columns", [["a.b", "a_dot_b"], ["Age", "age"], ["age", "age"]])
def test_names_that_cannot_be_told_apart_are_refused(columns: list[str]) -> None:
    with pytest.raises(UserError, match="same name in a request"):
        request_names(columns)


def test_names_keep_the_order() -> None:
    assert list(request_names(["z", "a.b"]).items()) == [("z", "z"), ("a.b", "a_dot_b")]
