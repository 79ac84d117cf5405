"""Texts as names of files: injective, reversible, and fit for file systems and URLs."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lfm4ads_tf.file_names import file_name, original_text

# texts that meet each other if anything does: few characters, the marks among them
_CLOSE = st.text("a/._~ %27é", max_size=6)
_ANY = st.text(max_size=300)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("home_feed", "home_feed"),
        ("home/feed", "home~2Ffeed"),
        ("Tab-1.b@x+y", "Tab-1.b@x+y"),
        ("..", "~2E."),
        (".", "~2E"),
        (".hidden", "~2Ehidden"),
        ("", "~"),
        ("~", "~7E"),
        ("50%", "50~25"),
        ("größe", "gr~C3~B6~C3~9Fe"),
        ("module/isomorphic & full", "module~2Fisomorphic~20~26~20full"),
        ("model/IR*UR", "model~2FIR~2AUR"),
    ],
)
def test_known_names(text: str, name: str) -> None:
    assert file_name(text) == name
    assert original_text(name) == text


@given(_CLOSE | _ANY, _CLOSE | _ANY)
@example("a" * 300, "a" * 301)
@example("é" * 200, "é" * 199 + "e")
def test_two_texts_have_two_names(one: str, other: str) -> None:
    assert (file_name(one) == file_name(other)) == (one == other)


@given(_CLOSE | _ANY | st.text(st.characters(categories=["Cs", "Cc", "Po"]), max_size=9))
def test_a_name_is_plain_short_visible_and_needs_no_quoting(text: str) -> None:
    name = file_name(text)
    assert re.fullmatch(r"[A-Za-z0-9_@+~-][A-Za-z0-9._@+~-]*", name)
    assert len(name) <= 160
    assert unquote(name) == name == quote(name, safe="@+")


@given(_CLOSE | st.text(max_size=12))
def test_a_name_gives_its_text_back(text: str) -> None:
    assert original_text(file_name(text)) == text


@given(st.text("~aA27EfF.é", max_size=6))
def test_what_is_read_back_has_that_name(name: str) -> None:
    try:
        text = original_text(name)
    except ValueError:
        return
    assert file_name(text) == name


def test_a_digest_cannot_be_read_back() -> None:
    name = file_name("x" * 161)
    assert name.startswith("x" * 126 + "~~")
    with pytest.raises(ValueError, match="the name of no text"):
        original_text(name)
