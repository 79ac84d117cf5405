"""Whole models on parameter servers: as on one machine by one worker, and on by two."""

from __future__ import annotations

from typing import Any

import pytest

from lfm4ads_tf.kernels.library import library
from lfm4ads_tf.models.registry import UPSTREAMS
from tests.cluster.model_bodies import CASES, OWN
from tests.cluster.servers import report_of

BODY = "tests.cluster.model_bodies:trained"
ROOM = 1e-5
"""Of losses around 1 and weights below 1 after three steps: sums are in another order."""
BOUNDED = {"clip_norm": 0.5, "weight_decay": 0.1, "table_l2": 0.01}


def check(report: dict[str, Any], room: float = ROOM) -> None:
    """Every model of a report started and moved as on one machine, and went on."""
    assert report
    for case, found in report.items():
        assert "error" not in found, f"{case}: {found['error']}"
        assert found["same_start"] and found["finite"], case
        assert found["losses"] <= room and found["weights"] <= room, (case, found)
        assert found["moved"] > 1e-3, case
        assert found["sums"] <= 1e-6, case  # no step was lost, none counted twice


def test_every_upstream_has_a_case() -> None:
    named = {name.split(",")[0].split(" ")[0] for name in CASES}
    assert {UPSTREAMS[name].__name__ for name in UPSTREAMS} <= named


@pytest.mark.slow
def test_the_foundation_model_trains_with_dropout() -> None:
    check(report_of(BODY, names=["foundation with dropout"], forms=[True]))


@pytest.mark.cluster
@pytest.mark.parametrize("kernels", [True, False])
def test_every_model_trains(kernels: bool) -> None:
    if kernels and library() is None:
        pytest.skip("the kernels are not built")
    check(report_of(BODY, names=[*CASES], forms=[kernels], kernels=kernels))


@pytest.mark.cluster
@pytest.mark.parametrize("rule", ["adagrad", "adam"])
def test_bounds_and_penalties_are_those_of_one_machine(rule: str) -> None:
    options = {**BOUNDED, "rule": rule}
    check(report_of(BODY, names=[*OWN], forms=[True, False], options=options), 10 * ROOM)
