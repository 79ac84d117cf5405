from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.owner_checks import check_table_owners
from lfm4ads_tf.features.spec_file import load_spec, parse_spec

HASHED = {"kind": "hashed", "owner": "user"}
ITEM = {"kind": "vocabulary", "owner": "item"}


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ({"user_id": {**HASHED, "bucketz": 5}}, ["user_id", "bucketz", "'buckets'"]),
        ({"user_id": {"kind": "hashd", "owner": "user"}}, ["'hashd'", "'hashed'"]),
        ({"user_id": {"kind": "hashed"}}, ["user_id", "owner", "required"]),
        ({"user_id": {**HASHED, "owner": "ad"}}, ["user_id", "owner", "'ad'"]),
        ({"user_id": {**HASHED, "buckets": 1}}, ["user_id", "buckets", "received 1"]),
        ({"item_id": {**ITEM, "owner": "user"}}, ["'item_id'", "user", "item"]),
        ({"x": {**HASHED, "column": "tab"}}, ["'x'", "'tab'", "context"]),
        ({"x": {**HASHED, "column": "time"}}, ["'x'", "'time'", "context"]),
        ({"x": {**HASHED, "owner": "context", "column": "is_click"}}, ["'x'", "label"]),
        (
            {"x": {"kind": "crossed", "owner": "user", "columns": ["user_id", "item_id"]}},
            ["'x'", "'item_id'"],
        ),
        (
            {"a": {**HASHED, "column": "c"}, "b": {**ITEM, "column": "c"}},
            ["'c'", "'a'", "'b'"],
        ),
        ({"item_id": ITEM, "x": {**ITEM, "table": "item_ids"}}, ["item_ids", "'item_id'"]),
        (
            {"age": {"kind": "numeric", "owner": "user"}, "x": {**HASHED, "table": "age"}},
            ["'x'", "'age'"],
        ),
        (
            {"s": {"kind": "statistic", "owner": "item", "task": "clik", "keys": ["item"]}},
            ["'s'", "'clik'", "'click'"],
        ),
        (
            {"s": {"kind": "statistic", "owner": "item", "task": "click", "keys": ["user"]}},
            ["'s'", "user"],
        ),
        (
            {
                "item_id": ITEM,
                "h": {
                    "kind": "sequence",
                    "owner": "user",
                    "events_of": "clicks",
                    "table": "item_id",
                },
            },
            ["'h'", "'clicks'", "'click'"],
        ),
        (
            {"h": {"kind": "sequence", "owner": "user", "events_of": "click"}},
            ["'h'", "'item_id'"],
        ),
        (
            {"p": {"kind": "numeric", "owner": "item", "boundaries": [1.0]}},
            ["transform: buckets"],
        ),
        (
            {
                "p": {
                    "kind": "numeric",
                    "owner": "item",
                    "transform": "buckets",
                    "boundaries": [2.0, 1.0],
                }
            },
            ["increasing"],
        ),
    ],
)
def test_bad_feature_is_refused(make_spec: Any, features: Any, words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        make_spec(features)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ({"keyz": {}}, ["keyz", "'keys'"]),
        ({"keys": {"user": "u", "itm": "i", "item": "i", "time": "t"}}, ["keys.itm", "'item'"]),
        ({"split": {"by": "day", "train_until": 8, "valid_until": 6}}, ["train_until", "8", "6"]),
        (
            {"split": {"per": "all", "by": "time", "fractions": [0.5, 0.1, 0.1]}},
            ["sum to 1"],
        ),
        ({"period": {"by": "day", "blocks": 4}}, ["period", "exactly one"]),
        ({"period": {}}, ["period", "exactly one"]),
        ({"period": {"first_at_most": 0}}, ["first_at_most", "received 0"]),
        ({"best_possible": {"clik": "p"}}, ["'clik'", "'click'"]),
        ({"tasks": {}}, ["tasks"]),
        ({"log": None}, ["log", "required"]),
    ],
)
def test_bad_top_level_is_refused(make_spec: Any, over: Any, words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        make_spec(**over)
    for word in words:
        assert word in str(error.value)


def test_log_columns_are_context_unless_listed(make_spec: Any) -> None:
    spec = make_spec({"x": {**HASHED, "column": "hour"}})
    check_table_owners(spec, {"log": ["user_id"]})
    with pytest.raises(UserError, match="log.user_columns"):
        check_table_owners(spec, {"log": ["user_id", "hour"]})


def test_side_table_gives_its_columns_an_owner(make_spec: Any) -> None:
    tables = {"items": {"files": ["i.csv"], "owner": "item", "key": "item_id"}}
    spec = make_spec({"x": {**HASHED, "column": "color"}}, tables=tables)
    with pytest.raises(UserError, match="describes the item"):
        check_table_owners(spec, {"log": ["user_id"], "items": ["item_id", "color"]})


def test_file_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(
        "name: tiny\nlog: {files: [log.csv]}\nkeys: {user: u, item: i, time: t}\n"
        "tasks: {click: c}\nsplit: {by: t, train_until: 1, valid_until: 2}\n"
        "features: {u: {kind: hashed, owner: user}}\n",
        encoding="utf-8",
    )
    spec = load_spec(path, {"features": {"u": {"buckets": 7}}, "tasks": {"like": "l"}})
    assert spec.features["u"].buckets == 7  # type: ignore[union-attr]
    assert spec.task_names == ["click", "like"]
    assert spec.tasks["click"].label == "c"


@pytest.mark.parametrize("text", [None, "a: [", "- 1\n- 2\n"])
def test_unreadable_file_is_a_user_error(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "spec.yaml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="spec.yaml"):
        load_spec(path)


def test_a_bound_by_default_is_of_deviations_and_stays_when_read_again(make_spec: Any) -> None:
    kinds = {
        "age": ({}, 10),
        "age_log": ({"transform": "log"}, 10),
        "free": ({"bound": None}, None),
        "own": ({"bound": 2.5}, 2.5),
        "plain": ({"standardize": 0}, None),
        "plain_own": ({"standardize": False, "bound": 7}, 7),
        "bucket": ({"transform": "buckets"}, None),
    }
    number = {"kind": "numeric", "owner": "user", "column": "age"}
    spec = make_spec({name: {**number, **more} for name, (more, _) in kinds.items()})
    for _ in range(2):
        bounds = {name: getattr(f, "bound", 0) for name, f in spec.features.items()}
        assert bounds == {name: bound for name, (_, bound) in kinds.items()}
        spec = parse_spec(spec.model_dump(mode="json"))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"bound": 0}, ["bound", "received 0"]),
        ({"bound": "inf"}, ["bound"]),
        ({"bound": 3, "transform": "buckets"}, ["bound", "raw and log"]),
    ],
)
def test_a_bound_is_a_positive_number_of_a_dense_one(
    make_spec: Any, more: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(UserError) as error:
        make_spec({"age": {"kind": "numeric", "owner": "user", **more}})
    for word in words:
        assert word in str(error.value)


def test_the_default_period_can_be_given_a_longer_first_one(make_spec: Any) -> None:
    assert make_spec(period={"first_at_most": 2}).period.blocks == 8
    assert make_spec(period={"by": "day", "first_at_most": 2}).period.blocks is None
    assert make_spec().period.first_at_most == 3
