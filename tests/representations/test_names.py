from __future__ import annotations

from typing import Any

import pytest

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.representations.config import RepresentationsConfig
from lfm4ads_tf.representations.names import is_item_side, representation_names, side_of
from lfm4ads_tf.strict import parse


def test_every_layer_side_and_aggregation_has_a_name() -> None:
    config = RepresentationsConfig(layers=["fm", "ad.cross_1"], aggregations=["mean", "last-raw"])
    names = representation_names(config, ["towers", "fm", "ad.cross_1"])
    assert names[:5] == ["UR", "IR", "CR_user@fm", "CR_user@fm~mean", "CR_user@fm~last-raw"]
    assert len(names) == 2 + 2 * 2 * 3
    assert names[-1] == "CR_item@ad.cross_1~last-raw"
    assert [is_item_side(n) for n in names] == [False, True, *[False] * 6, *[True] * 6]
    assert [side_of(n) for n in ("UR", "CR_item@fm~mean")] == ["user", "item"]
    assert config.variants() == [
        ("", "time_decay", True),
        ("~mean", "mean", True),
        ("~last-raw", "last", False),
    ]


@pytest.mark.parametrize(("given", "hours"), [(5, 5.0), ("3d", 72.0), ("36 h", 36.0), ("1.5", 1.5)])
def test_a_half_life_is_hours_or_a_text_with_a_unit(given: Any, hours: float) -> None:
    config = RepresentationsConfig(half_life=given, item_half_life=given)
    assert config.half_life == config.item_half_life == hours


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"half_life": "3 weeks"}, "half_life"),
        ({"half_life": "-1d"}, "greater than 0"),
        ({"decay": 1.5}, "less than or equal to 1"),
        ({"aggregations": ["mode"]}, "'mode' is none of last, mean, count_decay, time_decay"),
        ({"aggregations": ["mean", "mean"]}, "named twice"),
        ({"mode": "event"}, "name the layers"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(RepresentationsConfig, wrong, source="representations")
