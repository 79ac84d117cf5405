"""Trainings of real processes against one of a single process, whatever is killed on the way.

They take minutes: `make test-cluster` runs them. What is compared is the AUC on test rows of the
generated log, whose two tasks vary by some 0.001 and 0.002 between runs in other orders of steps.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.cluster_run import ClusterRun, test_auc
from tests.cluster.scripts import ROOT

pytestmark = pytest.mark.cluster

SPEC = (
    "--spec", "synthetic",
    "--set", "dataset_options.rows=60000",
    "--set", "upstream.training.auto=false",
    "--set", "upstream.training.passes=5",
    "--set", "upstream.training.checkpoint_every=20",
    "--set", "upstream.training.optimizer.table_learning_rate=0.1",
)  # fmt: skip
STEPS = 250
CLOSE = {"click": 0.002, "conversion": 0.004}


def train(*arguments: str) -> None:
    """A command of train.py in one process."""
    command = [sys.executable, "-m", "lfm4ads_tf.command_line", *arguments]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    out = tmp_path_factory.mktemp("single") / "run"
    train("prepare", *SPEC, "--out", str(out))
    train("pretrain", *SPEC, "--out", str(out))
    return out


def prepared(single: Path, folder: Path) -> Path:
    """A run folder with encoded data alone."""
    out = folder / "run"
    shutil.copytree(single, out, ignore=shutil.ignore_patterns("upstream", "tensorboard"))
    return out


def steps(out: Path) -> int:
    """Steps of the upstream."""
    return int(json.loads((out / "upstream/seed_0/results.json").read_text())["steps"])


def require_close(single: Path, out: Path) -> None:
    """Compares the AUC of both tasks."""
    expected, found = test_auc(single), test_auc(out)
    print(f"single {expected}, cluster {found}")
    for task, distance in CLOSE.items():
        assert abs(expected[task] - found[task]) <= distance, (task, expected, found)


def checkpoint(out: Path) -> Path:
    """The file that names the latest checkpoint."""
    return out / "upstream/seed_0/checkpoint/checkpoint"


def await_checkpoint(run: ClusterRun, *, of_chief: int, seconds: float = 120.0) -> None:
    """Waits for a checkpoint of the n-th chief, counted from 1."""
    path = checkpoint(run.out)
    run.until(lambda: len(run.starts("chief:0")) == of_chief, "the chief")
    before = path.stat().st_mtime if path.exists() else 0.0
    run.until(lambda: path.exists() and path.stat().st_mtime > before, "a checkpoint", seconds)


def test_learns_what_one_process_learns(single: Path, tmp_path: Path) -> None:
    out = prepared(single, tmp_path)
    run = ClusterRun(out, "pretrain", *SPEC)
    assert run.finish() == 0, run.told
    assert steps(out) == STEPS and run.learned_twice == 0
    require_close(single, out)


@pytest.mark.parametrize("steps_per_call", [2, 8])
def test_eight_killed_workers(single: Path, tmp_path: Path, steps_per_call: int) -> None:
    out, draw = prepared(single, tmp_path), random.Random(steps_per_call)
    run = ClusterRun(out, "pretrain", *SPEC, "--set", f"cluster.steps_per_call={steps_per_call}")
    run.until((out / "upstream/seed_0/manifest.json").exists, "the model")
    killed = 0
    while killed < 8 and not run.is_over:
        time.sleep(draw.uniform(0.5, 3.0))
        if not run.is_over:
            run.kill(f"worker:{draw.randrange(2)}")
            killed += 1
    assert run.finish() == 0, run.told
    print(f"{killed} workers killed, {run.learned_twice} batches learned twice")
    assert killed == 8
    assert steps(out) == STEPS and 0 <= run.learned_twice <= 8 * steps_per_call
    require_close(single, out)


def test_a_server_is_killed_three_times(single: Path, tmp_path: Path) -> None:
    out, draw = prepared(single, tmp_path), random.Random(3)
    run = ClusterRun(out, "pretrain", *SPEC)
    for k in range(3):
        await_checkpoint(run, of_chief=k + 1)
        time.sleep(draw.uniform(0.0, 2.0))
        run.kill(f"ps:{draw.randrange(2)}")
    assert run.finish() == 0, run.told
    assert len(run.starts("chief:0")) == 4 and len(run.starts("ps:1")) == 4
    assert len(run.starts("worker:0")) == 1  # workers stay
    assert run.log("chief:0").count("resumed upstream seed 0 at step") == 3
    assert steps(out) == STEPS
    require_close(single, out)


def test_a_chief_is_killed_three_times(single: Path, tmp_path: Path) -> None:
    # 200 MB of tables and slots on each server
    large = (*SPEC, "--set", "features.city_category.buckets=4200000")
    plain, out = tmp_path / "plain", tmp_path / "run"
    train("prepare", *large, "--out", str(plain))
    shutil.copytree(plain, out)
    train("pretrain", *large, "--out", str(plain))
    run = ClusterRun(out, "pretrain", *large)
    sizes: list[list[float]] = []
    for k in range(4):
        await_checkpoint(run, of_chief=k + 1, seconds=300)
        sizes.append([run.memory_mb(f"ps:{i}") for i in range(2)])
        if k < 3:
            run.kill("chief:0")
    print(f"servers' memory, MB: {sizes}")
    assert run.finish(600) == 0, run.told
    assert steps(out) == STEPS
    assert all(
        now <= 1.1 * first for one in sizes[1:] for now, first in zip(one, sizes[0], strict=True)
    )
    require_close(plain, out)


def test_a_killed_launcher_leaves_no_process(single: Path, tmp_path: Path) -> None:
    out = prepared(single, tmp_path)
    run = ClusterRun(out, "pretrain", *SPEC)
    run.until(checkpoint(out).exists, "a checkpoint")
    run.kill_launcher()
    deadline = time.monotonic() + 10
    while run.alive() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert run.alive() == []
    again = ClusterRun(out, "pretrain", *SPEC)
    assert again.finish() == 0, again.told
    assert "resumed upstream seed 0 at step" in again.log("chief:0")
    assert steps(out) == STEPS
    require_close(single, out)


def test_a_copy_is_killed(single: Path, tmp_path: Path) -> None:
    out = prepared(single, tmp_path)
    run = ClusterRun(out, "pretrain", *SPEC, servers=0)
    run.until(checkpoint(out).exists, "a checkpoint")
    run.kill("worker:1")
    run.until(lambda: len(run.starts("worker:0")) == 2, "the restart")
    assert run.finish() == 0, run.told
    assert "resumed upstream seed 0 at step" in run.log("worker:0")
    assert steps(out) == STEPS
    require_close(single, out)
