"""Does an export ask for what a feature spec declares?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lfm4ads_tf.errors import ExportRefused
from lfm4ads_tf.features.raw_types import RawType, raw_sides, raw_types
from lfm4ads_tf.features.spec import FeatureSpec

_OWN_COLUMNS = {"exclude": "texts"}  # asked for by retrieval exports, whatever the spec says


def check_against_spec(contract: Mapping[str, Any], spec: FeatureSpec) -> None:
    """Compares an export's contract with a feature spec.

    Each column of the contract must be one of the spec's, of the same type and side, and the tasks
    must be the spec's.

    Args:
        contract: What `contract.json` holds.
        spec: The feature spec.

    Raises:
        ExportRefused: They differ; the column is named.
    """
    types = raw_types(spec)
    sides: dict[str, str] = dict(raw_sides(spec))
    for side, key in (("user", spec.keys.user), ("item", spec.keys.item)):
        if key is not None:  # no feature need read it: representations are looked up by it
            types.setdefault(key, RawType("text"))
            sides[key] = side
    kind = str(contract["kind"])
    own = _OWN_COLUMNS if kind.startswith("retrieval") else {}
    told_sides = contract["user_columns"] or contract["item_columns"]  # a tower's go unsaid
    for column, wanted in contract["columns"].items():
        if own.get(column) == wanted:
            continue
        if column not in types:
            raise ExportRefused(
                f"the export asks for the column '{column}', which no feature of the spec "
                f"'{spec.name}' reads"
            )
        if types[column].kind != wanted:
            raise ExportRefused(
                f"the export reads the column '{column}' as {wanted}, the spec '{spec.name}' as "
                f"{types[column].kind}"
            )
        for side in ("user", "item") if told_sides else ():
            if (column in contract[f"{side}_columns"]) != (sides[column] == side):
                told = "does" if sides[column] == side else "does not"
                raise ExportRefused(
                    f"the column '{column}' {told} belong to the {side} in the spec "
                    f"'{spec.name}', unlike in the export"
                )
    predicts = kind == "foundation" or kind.startswith("ranker_")
    if predicts and list(contract["tasks"]) != spec.task_names:
        raise ExportRefused(
            f"the export predicts {', '.join(contract['tasks']) or 'nothing'}, the spec "
            f"'{spec.name}' {', '.join(spec.task_names)}"
        )
