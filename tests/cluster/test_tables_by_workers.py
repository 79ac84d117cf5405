"""Tables made, saved and restored by the workers of a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm4ads_tf.embeddings.storage import read_tables, write_tables
from tests.cluster.segment_bodies import traveller, two_losses
from tests.cluster.servers import report_of
from tests.embeddings.stored_pairs import TABLES, assert_same, pair, state

pytestmark = pytest.mark.slow  # `tests/embeddings/test_storage_segments.py` is without a cluster


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """What the cluster did with what one machine wrote, and where."""
    folder = tmp_path_factory.mktemp("tables")
    write_tables(folder / "one", *pair(TABLES, 5, "adam"))
    return folder, report_of("tests.cluster.segment_bodies:round_trip", folder=str(folder))


def test_initial_values_are_those_of_one_machine(reported: tuple[Path, Any]) -> None:
    expected = state(pair(TABLES, 1, "adam"), "user")["weights"]
    np.testing.assert_array_equal(np.array(reported[1]["fresh"], np.float32), expected)
    assert len(reported[1]["servers"]) == 2


def test_the_cluster_reads_what_it_wrote_and_what_one_machine_wrote(
    reported: tuple[Path, Any],
) -> None:
    assert reported[1]["restored"]
    source = pair(TABLES, 5, "adam")
    for table in TABLES:
        found = reported[1]["from_one"][table.name]
        assert_same(
            {k: np.array(v, np.float32) for k, v in found.items()}, state(source, table.name)
        )


@pytest.mark.parametrize("shards", [1, 3])
def test_one_machine_reads_what_the_cluster_wrote(reported: tuple[Path, Any], shards: int) -> None:
    source, target = pair(TABLES, 1, "adam"), pair(TABLES, 4, "adam", shards=shards)
    assert list((reported[0] / "again").glob("0000_user.weights.00002-of-00003.npy"))
    read_tables(reported[0] / "again", *target)
    for table in TABLES:
        assert_same(state(target, table.name), state(source, table.name))


def test_a_damaged_segment_is_named(reported: tuple[Path, Any]) -> None:
    assert "0000_user.weights.00001-of-00003.npy' is missing or damaged" in reported[1]["said"]


def test_trained_tables_move_to_other_numbers_of_servers_and_back(tmp_path: Path) -> None:
    report = report_of("tests.cluster.segment_bodies:travel", servers=5, folder=str(tmp_path))
    assert report["servers"] == [2, 1, 3, 5, 2]
    assert all(report["equal"])
    for losses in report["losses"][1:]:
        np.testing.assert_allclose(losses, report["losses"][0], rtol=1e-6)
    alone = traveller(seed=9, shards=1)
    read_tables(tmp_path / "4", *alone)
    np.testing.assert_allclose(two_losses(alone), report["losses"][0], rtol=1e-6)
