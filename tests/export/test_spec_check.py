"""An export's contract beside a feature spec."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from export.spec_check import check_against_spec
from lfm4ads_tf.errors import ExportRefused
from lfm4ads_tf.features.spec import parse_spec


def contract_of(exports: Path, kind: str) -> dict[str, Any]:
    path = exports / kind / "1" / "assets.extra" / "contract.json"
    contract: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return contract


@pytest.mark.parametrize("kind", ["foundation", "ranker_tab 1", "user_tower", "item_tower"])
def test_every_kind_fits_its_own_spec(kind: str, exports: Path, world: Any) -> None:
    contract = contract_of(exports, kind)
    assert contract["columns"]
    check_against_spec(contract, world.spec)


def test_a_retrieval_has_a_column_of_its_own(exports: Path, world: Any) -> None:
    contract = contract_of(exports, "user_tower")
    contract["columns"]["exclude"] = "texts"
    check_against_spec({**contract, "kind": "retrieval_ann"}, world.spec)
    with pytest.raises(ExportRefused, match="asks for the column 'exclude'"):
        check_against_spec(contract, world.spec)


def without_brand(raw: dict[str, Any]) -> None:
    del raw["features"]["brand"], raw["features"]["user_brand"]


def other_type(raw: dict[str, Any]) -> None:
    raw["features"]["age"] = {"kind": "hashed", "owner": "user", "buckets": 9}


def other_tasks(raw: dict[str, Any]) -> None:
    raw["tasks"] = {"like": "is_like", "click": "is_click"}


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "column": (
        without_brand,
        "asks for the column 'brand', which no feature of the spec 'example'",
    ),
    "type": (other_type, "reads the column 'age' as number, the spec 'example' as text"),
    "tasks": (other_tasks, "predicts click, like, the spec 'example' like, click"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_differs_is_named(change: str, exports: Path, world: Any) -> None:
    edit, message = CHANGES[change]
    raw = copy.deepcopy(world.raw_spec)
    edit(raw)
    with pytest.raises(ExportRefused, match=message):
        check_against_spec(contract_of(exports, "foundation"), parse_spec(raw))


def test_a_column_of_the_other_side_is_named(exports: Path, world: Any) -> None:
    contract = contract_of(exports, "foundation")
    contract["user_columns"].remove("income")
    with pytest.raises(ExportRefused, match="the column 'income' does belong to the user in the"):
        check_against_spec(contract, world.spec)
    contract["user_columns"] += ["income", "brand"]
    with pytest.raises(ExportRefused, match="'brand' does not belong to the user in the spec"):
        check_against_spec(contract, world.spec)
