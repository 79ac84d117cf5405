"""An export's contract beside a feature spec."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lfm4ads_tf.errors import ExportRefused, UserError
from lfm4ads_tf.export.spec_check import check_against_spec, read_spec
from lfm4ads_tf.features.spec_file import parse_spec


def contract_of(exports: Path, kind: str) -> dict[str, Any]:
    path = exports / kind / "1" / "assets.extra" / "contract.json"
    contract: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return contract


@pytest.mark.parametrize("kind", ["foundation", "ranker_tab 1", "user_tower", "item_tower"])
def test_every_kind_fits_its_own_spec(kind: str, exports: Path, world: Any) -> None:
    contract = contract_of(exports, kind)
    assert contract["columns"]
    check_against_spec(contract, world.spec)


def as_retrieval(contract: dict[str, Any]) -> dict[str, Any]:
    """The contract of a retrieval whose query is this tower."""
    ends = contract["signatures"]["predict"]["inputs"]
    ends["exclude"] = {"dtype": "string", "shape": [None, None]}
    contract["columns"]["exclude"] = "texts"
    return {**contract, "kind": "retrieval_ann"}


def test_a_retrieval_has_a_column_of_its_own(exports: Path, world: Any) -> None:
    contract = as_retrieval(contract_of(exports, "user_tower"))
    check_against_spec(contract, world.spec)
    with pytest.raises(ExportRefused, match="asks for the column 'exclude'"):
        check_against_spec({**contract, "kind": "user_tower"}, world.spec)


def test_only_a_projection_asks_for_no_column(exports: Path, world: Any) -> None:
    contract = as_retrieval(contract_of(exports, "user_tower"))
    contract["columns"] = {"exclude": "texts"}
    predict = contract["signatures"]["predict"]["inputs"]
    for name in predict.keys() - {"exclude"}:
        del predict[name]
    with pytest.raises(ExportRefused, match="asks for no column of the spec 'example'"):
        check_against_spec(contract, world.spec)
    contract["representations"]["UR"] = 3
    with pytest.raises(ExportRefused, match=r"inputs \['exclude'\], .* are \['UR', 'exclude'\] in"):
        check_against_spec(contract, world.spec)
    predict["UR"] = {"dtype": "float32", "shape": [None, 3]}
    check_against_spec(contract, world.spec)
    with pytest.raises(ExportRefused, match="asks for no column of the spec 'example'"):
        check_against_spec({**contract, "kind": "user_tower", "columns": {}}, world.spec)


def drop_column(contract: dict[str, Any], column: str = "weekday") -> None:
    """As if no column of this name had ever been read."""
    del contract["columns"][column], contract["signatures"]["predict"]["inputs"][column]


def drop_input(contract: dict[str, Any]) -> None:
    del contract["signatures"]["predict"]["inputs"]["s_dot_rate"]


def raw_name(contract: dict[str, Any]) -> None:
    inputs = contract["signatures"]["predict"]["inputs"]
    inputs["s.rate"] = inputs.pop("s_dot_rate")


def other_dtype(contract: dict[str, Any]) -> None:
    contract["signatures"]["predict"]["inputs"]["weekday"]["dtype"] = "int32"


def other_width(contract: dict[str, Any]) -> None:
    contract["signatures"]["predict"]["inputs"]["vector"]["shape"] = [None, 3]


def any_rank(contract: dict[str, Any]) -> None:
    contract["signatures"]["predict"]["inputs"]["vector"]["shape"] = None


def more_outputs(contract: dict[str, Any]) -> None:
    outputs = contract["signatures"]["serving_default"]["outputs"]
    outputs["share"] = outputs["like"]


INCONSISTENT: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "column": (drop_column, "does not ask for the column 'weekday', which the spec 'example' r"),
    "scenario": (lambda c: drop_column(c, "tab"), "does not ask for the column 'tab', which the"),
    "input": (drop_input, r"'predict' has the inputs .*'s_dot_count', 'segments'.* but the col"),
    "name": (raw_name, r"'predict' has the inputs .*'s.rate', .* are .*'s_dot_rate', .* in a req"),
    "dtype": (other_dtype, r"'weekday' of 'predict' is int32 \[None\], by .* it is int64 \[None\]"),
    "width": (other_width, r"'vector' of 'predict' is float32 \[None, 3\], .* float32 \[None, 2\]"),
    "rank": (any_rank, r"'vector' of 'predict' is float32 None, .* float32 \[None, 2\]"),
    "output": (
        more_outputs,
        r"'serving_default' has the outputs \['click', 'like', 'share'\], the",
    ),
}


@pytest.mark.parametrize("cause", INCONSISTENT)
def test_a_foundation_asks_for_all_and_gives_the_tasks(
    cause: str, exports: Path, world: Any
) -> None:
    edit, message = INCONSISTENT[cause]
    contract = contract_of(exports, "foundation")
    edit(contract)
    with pytest.raises(ExportRefused, match=message):
        check_against_spec(contract, world.spec)


def test_the_column_that_tells_the_ads_is_demanded(exports: Path, world: Any) -> None:
    contract = contract_of(exports, "foundation")
    spec = parse_spec({**world.raw_spec, "ads": {"by": "place", "values": ["feed"]}})
    with pytest.raises(ExportRefused, match="does not ask for the column 'place'"):
        check_against_spec(contract, spec)


def test_a_ranker_may_leave_features_out_in_all_its_signatures(exports: Path, world: Any) -> None:
    contract = contract_of(exports, "ranker_tab 1")
    drop_column(contract)
    with pytest.raises(ExportRefused, match="'rank' has the inputs .*'weekday'"):
        check_against_spec(contract, world.spec)
    del contract["signatures"]["rank"]["inputs"]["weekday"]
    check_against_spec(contract, world.spec)
    contract["signatures"]["rank"]["inputs"]["UR"]["shape"] = [None, 3]  # rows are not its matter
    check_against_spec(contract, world.spec)
    contract["signatures"]["rank"]["inputs"]["UR"]["shape"] = [None, 4]
    with pytest.raises(ExportRefused, match="'UR' of 'rank' is float32"):
        check_against_spec(contract, world.spec)


def test_fields_that_weights_read_together_are_the_specs(exports: Path, world: Any) -> None:
    contract = contract_of(exports, "foundation")
    assert "field_groups" not in contract  # no layer of it reads fields by groups
    contract["field_groups"] = {"mixer": {"a": ["user_id", "brand"], "b": ["tags"]}}
    check_against_spec(contract, world.spec)
    contract["field_groups"]["mixer"]["b"] = ["income"]
    with pytest.raises(ExportRefused, match="'mixer' of the export .* 'income', which is no embed"):
        check_against_spec(contract, world.spec)
    contract["field_groups"]["mixer"]["b"] = ["brand"]
    with pytest.raises(ExportRefused, match="reads the field 'brand' in two groups"):
        check_against_spec(contract, world.spec)


def test_a_spec_is_read_alone_or_from_a_run(world: Any, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    for held in (world.raw_spec, {"seed": 3, "spec": world.raw_spec}):
        path.write_text(yaml.safe_dump(held), encoding="utf-8")
        assert read_spec(path) == world.spec
    path.write_text(yaml.safe_dump({"seed": 3}), encoding="utf-8")
    with pytest.raises(UserError, match="features"):
        read_spec(path)


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
