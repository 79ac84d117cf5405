from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.interactions.token_groups import check_groups, extended, permuted, runs

FIELDS = [f"f{k}" for k in range(11)]
NAMES = st.lists(st.text("abcdef", min_size=1, max_size=4), min_size=1, max_size=20, unique=True)


@given(names=NAMES, data=st.data())
def test_groups_are_a_partition_of_nearly_equal_sizes(
    names: list[str], data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, len(names)))
    for groups in (runs(names, count), permuted(names, count, data.draw(st.integers(0, 9)))):
        assert sorted(name for group in groups for name in group) == sorted(names)
        sizes = [len(group) for group in groups]
        assert len(sizes) == count and max(sizes) - min(sizes) <= 1
    assert [n for group in runs(names, count) for n in group] == names


@given(names=NAMES, more=NAMES, data=st.data())
def test_an_added_field_joins_the_smallest_group_and_moves_no_other(
    names: list[str], more: list[str], data: st.DataObject
) -> None:
    groups = permuted(names, data.draw(st.integers(1, len(names))), 3)
    found = extended(groups, [*more, *names])
    for before, after in zip(groups, found, strict=True):
        assert after[: len(before)] == before
    sizes = [len(group) for group in found]
    assert max(sizes) - min(sizes) <= 1
    assert {name for group in found for name in group} == {*names, *more}


def test_a_permutation_is_the_same_in_any_process_and_order() -> None:
    order = sorted(FIELDS, key=lambda name: zlib.crc32(f"7:token/{name}".encode()) & 0x7FFFFFFF)
    groups = [order[:3], order[3:6], order[6:9], order[9:]]
    assert permuted(FIELDS, 4, 7) == permuted(FIELDS[::-1], 4, 7) == groups
    assert permuted(FIELDS, 4, 8) != groups


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"a": ["f0", "f1"], "b": ["f2", "f9x"]}, "unknown feature 'f9x'"),
        ({"a": ["f0", "f1"], "b": ["f2", "f1"]}, "'f1' is in two token groups"),
        ({"a": ["f0", "f1"]}, "'f2' is in no token group"),
        ({"a": ["f0", "f1", "f2"], "b": []}, "'b' names no feature"),
    ],
)
def test_semantic_groups_are_a_partition(groups: dict[str, list[str]], message: str) -> None:
    check_groups({"a": ["f0", "f2"], "b": ["f1"]}, FIELDS[:3])
    with pytest.raises(UserError, match=message):
        check_groups(groups, FIELDS[:3])
    if "in no token group" in message:
        check_groups(groups, FIELDS[:3], all_fields=False)
    else:
        with pytest.raises(UserError, match=message):
            check_groups(groups, FIELDS[:3], all_fields=False)


def test_more_tokens_than_fields_are_refused() -> None:
    with pytest.raises(UserError, match="more tokens than fields"):
        runs(FIELDS, 12)
