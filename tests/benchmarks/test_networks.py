"""The operations of a step against hand counts, and the rows against their definition."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.peers.networks import NETWORKS, REFERENCE, Network, flops
from benchmarks.peers.ours_worker import config_of, dense_variables, layout_of
from benchmarks.peers.rows import write_rows
from lfm4ads_tf.pipeline.build import upstream


def test_operations_of_the_reference_networks() -> None:
    cross = 2 * (640 * 64 + 64 * 640)
    deep = 640 * 256 + 256 * 128
    assert flops(REFERENCE["DCNv2"].kernels()) == 6 * (cross + deep + 128 * 3)
    experts = 4 * (640 * 256 + 256 * 128)
    towers = 3 * (128 * 64 + 64 * 1)
    assert flops(REFERENCE["MMoE"].kernels()) == 6 * (experts + 3 * 640 * 4 + towers)


def test_operations_of_levels_of_experts() -> None:
    first = 5 * (640 * 256 + 256 * 128) + 3 * 640 * 3 + 640 * 5
    second = 5 * (128 * 256 + 256 * 128) + 3 * 128 * 3
    towers = 3 * (128 * 64 + 64 * 1)
    assert flops(REFERENCE["PLE"].kernels()) == 6 * (first + second + towers)


@pytest.mark.parametrize("model", ["mmoe", "ple"])
def test_our_worker_builds_what_the_network_says(model: Any) -> None:
    network = Network(
        model, features=4, rows=9, dim=3, units=(6, 5), tower=(4,), experts=3, own=2, shared=3
    )
    made = upstream(layout_of(network), config_of(network), seed=0)
    shapes = [v.shape for v in dense_variables(made) if "kernel" in v.name.rpartition("/")[2]]
    assert 6 * sum(math.prod(shape) for shape in shapes) == flops(network.kernels())


def test_operations_of_full_parallel_cross_layers() -> None:
    network = Network(
        "dcnv2", features=3, dim=2, tasks=1, units=(5,), cross_rank=None, structure="parallel"
    )
    assert network.kernels() == [(6, 6), (6, 6), (6, 5), (11, 1)]
    assert flops(network.kernels()) == 6 * (36 + 36 + 30 + 11)


def test_networks_survive_json() -> None:
    networks = [n for peers in NETWORKS.values() for n in peers.values() if isinstance(n, Network)]
    for network in [*networks, replace(REFERENCE["MMoE"], tower=())]:
        assert Network.from_json(network.to_json()) == network


def test_older_checkouts_read_the_networks_that_they_know() -> None:
    older = {"levels", "own", "shared"}
    assert older.isdisjoint(REFERENCE["MMoE"].to_json())
    assert older < set(REFERENCE["PLE"].to_json())


def test_every_peer_has_each_network_or_a_reason() -> None:
    peers = {model: set(own) for model, own in NETWORKS.items()}
    assert peers["DCNv2"] == peers["MMoE"] == peers["PLE"]
    assert all(isinstance(n, Network) or n for own in NETWORKS.values() for n in own.values())


def test_rows_follow_zipf(tmp_path: Path) -> None:
    write_rows(tmp_path, 40_000, features=2, rows=50, tasks=3)
    ids = np.load(tmp_path / "ids.npy")
    assert ids.shape == (40_000, 2) and ids.dtype == np.int64
    expected = np.arange(1, 51) ** -1.2
    expected /= expected.sum()
    for column in ids.T:
        counts = np.bincount(column, minlength=50)
        shares = np.sort(counts)[::-1] / len(column)
        np.testing.assert_allclose(shares[:10], expected[:10], rtol=0.1)
    most = [np.bincount(column).argmax() for column in ids.T]
    assert most[0] != most[1]  # the frequent ids differ by feature


def test_rows_uniform_and_learnable(tmp_path: Path) -> None:
    write_rows(tmp_path, 40_000, features=4, rows=20, tasks=2, ids="uniform")
    ids, labels = np.load(tmp_path / "ids.npy"), np.load(tmp_path / "labels.npy")
    assert labels.shape == (40_000, 2) and labels.dtype == np.float32
    np.testing.assert_allclose(np.bincount(ids[:, 0]) / len(ids), 1 / 20, rtol=0.1)
    assert set(np.unique(labels)) == {0.0, 1.0}
    rates = [labels[ids[:, 0] == k, 0].mean() for k in range(20)]
    noise = 0.5 / np.sqrt(len(labels) / 20)
    assert np.std(rates) > 3 * noise  # an id tells something of the label
