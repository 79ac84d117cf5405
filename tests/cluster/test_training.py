"""The trainer on real parameter servers against the trainer of one machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cluster.scripts import report_of_module

pytestmark = pytest.mark.slow
STEPS = 20


@pytest.fixture(scope="module")
def data(make_ads: Any) -> Path:
    """An encoded log."""
    return Path(make_ads().cache.folder)


def both(data: Path, folder: Path, *, kernels: bool = True, **options: Any) -> tuple[Any, Any]:
    """What one machine and what a cluster trained."""
    arguments = [str(data), str(folder), json.dumps({"steps": STEPS, **options})]
    report = report_of_module("tests.cluster.training_bodies", *arguments, kernels=kernels)
    return report["alone"], report["cluster"]


def test_one_worker_learns_step_by_step_what_one_machine_does(data: Path, tmp_path: Path) -> None:
    # weighted rows, a last batch that is not full, and stock ops: the sums alone differ in order
    options = {"workers": 1, "servers": 2, "steps_per_call": 1, "weights": True}
    alone, cluster = both(data, tmp_path, kernels=False, **options)
    assert alone["steps"] == cluster["steps"] == cluster["iterations"] == STEPS
    np.testing.assert_allclose(cluster["losses"], alone["losses"], rtol=1e-4)
    np.testing.assert_allclose(cluster["scores"], alone["scores"], rtol=1e-4)
    assert len(cluster["devices"]) == 2


@pytest.mark.parametrize("kernels", [True, False])
def test_two_workers_make_every_step_once(data: Path, tmp_path: Path, kernels: bool) -> None:
    alone, cluster = both(data, tmp_path, kernels=kernels, steps_per_call=3)
    assert alone["steps"] == cluster["steps"] == cluster["iterations"] == STEPS
    # two workers' steps overlap: close, not equal
    np.testing.assert_allclose(cluster["losses"], alone["losses"], rtol=0.1)
    assert np.abs(np.subtract(cluster["scores"], alone["scores"])).mean() < 0.1
