"""A label column is refused as a key, a time, a split or a period, naming both places."""

from __future__ import annotations

from typing import Any

import pytest

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.spec_file import parse_spec

SPEC: dict[str, Any] = {
    "name": "s",
    "log": {"files": ["log.csv"]},
    "keys": {"user": "u", "item": "i", "time": "t", "scenario": "tab"},
    "tasks": {"click": {"label": "cnt", "positive_at_least": 5}},
    "signals": {"liked": "like"},
    "best_possible": {"click": "truth"},
    "split": {"by": "day", "train_until": 3, "valid_until": 5},
    "period": {"by": "day"},
    "features": {"a": {"owner": "context", "kind": "hashed"}},
}
PLACES = ["keys.user", "keys.item", "keys.time", "keys.scenario", "split.by", "period.by"]
LABELS = {"cnt": "tasks.click", "like": "signals.liked", "truth": "best_possible.click"}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("column", LABELS)
def test_a_label_is_nothing_else(place: str, column: str) -> None:
    section, key = place.split(".")
    spec = {**SPEC, section: {**SPEC[section], key: column}}
    with pytest.raises(UserError) as error:
        parse_spec(spec)
    message = str(error.value)
    assert f"`{place}` names the column '{column}', which is a label" in message
    assert f"the label of `{LABELS[column]}` too" in message and "Fix: " in message


def test_the_spec_itself_and_a_split_by_fractions_pass() -> None:
    parse_spec(SPEC)
    parse_spec({**SPEC, "split": {"per": "all", "by": "time", "fractions": [0.6, 0.2, 0.2]}})


@pytest.mark.parametrize(
    ("over", "place"),
    [({"order": "seen"}, "auxiliary.order"), ({"labels": {"click": "u"}}, "keys.user")],
)
def test_labels_of_auxiliary_rows_too(over: dict[str, Any], place: str) -> None:
    auxiliary = {"files": ["p.csv"], "scenario": "past", "order": "n", "labels": {"click": "seen"}}
    parse_spec({**SPEC, "auxiliary": auxiliary})
    with pytest.raises(UserError, match=f"`{place}` names the column .*which is a label"):
        parse_spec({**SPEC, "auxiliary": {**auxiliary, **over}})
