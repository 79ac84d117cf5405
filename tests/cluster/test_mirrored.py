"""Copies of a model that train together, against one machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf._version import __version__
from lfm4ads_tf.cluster.addresses import free_ports
from lfm4ads_tf.cluster.mirrored import Mirrored, shares
from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.data.execution import Execution
from lfm4ads_tf.data.row_source import RowSource
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.optim.replicas import losses_scaled, mean_over_replicas
from tests.cluster.scripts import ROOT, environment
from tests.cluster.training_bodies import trained


@pytest.fixture(scope="module")
def data(make_ads: Any) -> Path:
    """An encoded log."""
    return Path(make_ads().cache.folder)


@pytest.mark.slow
def test_copies_are_alike_and_learn_what_one_machine_does(data: Path, tmp_path: Path) -> None:
    # batches of 16 by three: every batch is filled up, the last one of 11 rows too
    options = {"weights": True, "steps": 12}
    alone = trained(Execution(), EncodedCache(data), tmp_path / "alone", **options)
    addresses = ",".join(f"127.0.0.1:{port}" for port in free_ports(3))
    arguments = [str(data), str(tmp_path / "all"), addresses]
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.cluster.mirrored_bodies"),
                *arguments,
                str(index),
                json.dumps(options),
            ],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(3)
    ]
    try:
        ended = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, ended, strict=True):
        assert process.returncode == 0, errors[-4000:]
    reports = [json.loads(out.splitlines()[-1]) for out, _ in ended]
    assert len({report["digest"] for report in reports}) == 1
    assert [report["first"] for report in reports] == [True, False, False]
    for report in reports:
        assert report["agreed"] == [{"from": 0, "text": "ä" * 300}] * 2
        assert report["refused"].startswith("worker:2 do not see the folder of worker:0.")
        assert report["steps"] == report["iterations"] == alone["steps"]
        # the same terms in another order
        np.testing.assert_allclose(report["losses"], alone["losses"], rtol=1e-5)
        np.testing.assert_allclose(report["scores"], alone["scores"], rtol=1e-4)
    assert (tmp_path / "all" / "best").exists()


@pytest.mark.parametrize("replicas", [1, 2, 3, 5, 16])
def test_shares_make_up_every_batch(data: Path, replicas: int) -> None:
    cache = EncodedCache(data)
    order = np.random.default_rng(1).permutation(cache.rows)[:37]
    source = RowSource(cache, lambda _: order, 16, start=1)
    whole = source.load(order)
    place = source.form.names.index("labels")
    keys = source.form.names.index("item")
    parts = [[*shares(source, k, replicas)] for k in range(replicas)]
    for number, batches in enumerate(zip(*parts, strict=True), start=1):
        rows = np.arange(len(order))[number * 16 : (number + 1) * 16]
        share = -(-len(rows) // replicas)
        for k, (batch, scale) in enumerate(batches):
            own = rows[k::replicas]
            assert batch["labels"].shape[0] == share
            assert float(scale) == pytest.approx(share * replicas / len(rows), rel=1e-6)
            np.testing.assert_array_equal(batch["labels"][: len(own)], whole[place][own])
            np.testing.assert_array_equal(batch["item"][: len(own)], whole[keys][own])
            assert np.isnan(batch["labels"][len(own) :].numpy()).all()
            np.testing.assert_array_equal(batch["weights"], np.arange(share) < len(own))
    assert len(parts[0]) == 2


@pytest.mark.parametrize("here", [True, False])
def test_who_does_not_see_the_folder_is_named(tmp_path: Path, here: bool) -> None:
    class Second(Mirrored):
        """The second of three processes, in the place of all."""

        def __init__(self) -> None:
            self._replicas, self._index, self.first = 3, 1, False
            self._sum = lambda votes: votes + tf.constant([0, 0, 1])  # what the others tell

        def agreed(self, decide: Any) -> Any:
            return [str(tmp_path / "probe"), __version__]

    (tmp_path / "probe").touch()
    with pytest.raises(UserError, match="worker:2 run another version"):
        Second().require_shared(tmp_path if here else tmp_path / "elsewhere")
    Second._these = lambda self, own: ["worker:1"] if own else []  # type: ignore[method-assign]
    if here:
        Second().require_shared(tmp_path)
        return
    with pytest.raises(UserError, match="worker:1 do not see the folder"):
        Second().require_shared(tmp_path / "elsewhere")


@pytest.mark.parametrize("tasks", [(), (2,)])
def test_rows_that_fill_up_weigh_nothing(data: Path, tasks: tuple[int, ...]) -> None:
    cache = EncodedCache(data)
    order = np.arange(7)
    weights = np.random.default_rng(2).uniform(1.0, 2.0, (cache.rows, *tasks)).astype(np.float32)
    source = RowSource(cache, lambda _: order, 7, weights=weights)
    (first, _), (second, _) = (next(iter(shares(source, k, 2))) for k in range(2))
    np.testing.assert_array_equal(first["weights"], weights[:7:2])
    np.testing.assert_array_equal(second["weights"][:3], weights[1:7:2])
    assert not second["weights"][3].numpy().any()


def test_one_process_means_nothing() -> None:
    values = [tf.constant([1.0, 2.0]), tf.IndexedSlices(tf.constant([[3.0]]), tf.constant([0]))]
    with losses_scaled(tf.constant(2.0)):
        means = mean_over_replicas(values)
    assert means[0] is values[0] and means[1] is values[1]
