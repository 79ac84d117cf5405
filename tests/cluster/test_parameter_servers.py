"""Tables and optimizers on parameter servers against one machine's."""

from __future__ import annotations

from typing import Any

import pytest

from lfm4ads_tf.kernels.library import library
from lfm4ads_tf.optim.rules.registry import RULES
from tests.cluster.servers import report_of
from tests.rounding import EPSILON

BODIES = "tests.cluster.table_bodies"
NARROW = {"bfloat16": 2.0**-8, "float16": 2.0**-11}
"""Largest relative rounding of the narrow storages."""


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["compiled", "stock"])
def report(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What two workers and two servers did, with kernels and without."""
    found = report_of(
        f"{BODIES}:all_of",
        kernels=request.param == "compiled",
        storages=["float32", *NARROW],
        adding=["sgd", "adagrad", "row_wise"],
        rules=[*RULES],
    )
    found["kernels"] = request.param == "compiled" and library() is not None
    return found


def test_parts_are_dealt_out_and_their_slots_and_moments_lie_beside(
    report: dict[str, Any],
) -> None:
    found = report["placement"]
    assert found["parts"] == [0, 1, 0]  # part i on server i mod 2
    assert len(found["slots"]) == 2 * 3  # Adam's two moments and its step, of two optimizers
    assert all(slot == found["parts"] for slot in found["slots"])
    assert set(found["dense"]) == {0, 1}
    assert len(found["moments"]) == 2 * 2
    assert all(moments == found["dense"] for moments in found["moments"])


def test_shards_are_filled_where_they_lie(report: dict[str, Any]) -> None:
    assert report["placement"]["filled_on"] == ["ps"]


def test_initial_values_are_those_of_one_machine(report: dict[str, Any]) -> None:
    assert report["initial_values"] == [True, True, True]


@pytest.mark.slow
@pytest.mark.parametrize("servers", [1, 3])
def test_initial_values_on_another_number_of_servers(servers: int) -> None:
    found = report_of(
        f"{BODIES}:initial_values", workers=1, servers=servers, shards=[servers, servers + 1]
    )
    assert found == [True, True]


def test_look_ups_are_those_of_one_machine_and_send_a_row_once(report: dict[str, Any]) -> None:
    found = report["lookups"]
    expected = found.pop("expected_rows")
    assert found
    for case, result in found.items():
        assert result["same"], case
        assert result["rows"] == expected, case
        assert result["gradient"] <= 50 * EPSILON, case  # sums of some numbers around 1


def test_rows_that_several_reads_name_are_summed_before_they_are_sent(
    report: dict[str, Any],
) -> None:
    found = report["sent_rows"]
    assert found["sources"] == (["Lfm4adsSumDuplicates"] if report["kernels"] else [])
    assert found["moved"] == pytest.approx([1.0, 1.0, 0.5], abs=4 * EPSILON)
    assert found["others"] == 0.0


def test_no_concurrent_update_is_lost(report: dict[str, Any]) -> None:
    for case, found in report["concurrent_updates"].items():
        start, each = (0.0, -1.0) if case.startswith("sgd") else (1.0, 1.0)
        assert found["lowest"] == found["highest"] == start + 1000 * each, case
        assert found["others"] == [start], case
        assert found["finite"], case


def test_every_rule_moves_as_on_one_machine(report: dict[str, Any]) -> None:
    for case, found in report["every_rule"].items():
        rule, storage, _ = case.split()
        assert found["kept"], case  # bit by bit, zeros of both signs too
        assert found["moved"] > 0.05, case
        room = 20 * EPSILON
        if storage in NARROW:  # an addition rounds once more; Ftrl feeds it back four times
            room += NARROW[storage] * (20 if rule == "ftrl" else 4)
        assert found["difference"] <= room * 2, case


def test_dense_variables_move_as_on_one_machine(report: dict[str, Any]) -> None:
    assert set(report["moments"]) == {"True", "False"}
    assert all(difference <= 20 * EPSILON for difference in report["moments"].values())
