"""A run killed with -9 goes on and ends as if nothing had happened."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

EVERY = 5  # steps between two checkpoints

# Kills its own process at the n-th call of a function, as `kill -9` from outside would.
_KILLED = """
import os, signal, sys
import lfm4ads_tf, train
from importlib import import_module

where, count = sys.argv[1], int(sys.argv[2])
module, owner, name = where.split(":")
holder = import_module(module)
holder = getattr(holder, owner) if owner else holder
original, calls = getattr(holder, name), 0

def counted(*args, **kwargs):
    global calls
    calls += 1
    if calls == count:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args, **kwargs)

setattr(holder, name, counted)
sys.argv = ["train.py", *sys.argv[3:]]
train.main()
"""
STEP = "lfm4ads_tf.progress:Progress:advance"  # after every step, once before the first
RENAME = "os::replace"
PART = "pyarrow.parquet::write_table"


@pytest.fixture(scope="module")
def killed(python: Callable[..., Any]) -> Callable[..., None]:
    """`killed(where, count, *arguments)`: runs a command that dies at the count-th call."""

    def run(where: str, count: int, *arguments: object) -> None:
        done = python(_KILLED, where, count, *arguments)
        assert done.returncode == -signal.SIGKILL, f"{done.returncode}\n{done.stdout}{done.stderr}"

    return run


def _resumes(out: Path) -> list[int]:
    """Steps that the log says a training went on from."""
    text = (out / "log.txt").read_text("utf-8")
    return [int(step) for step in re.findall(r"resumed .* at step (\d+)", text)]


@pytest.mark.slow
def test_pretraining_killed_at_random_steps_ends_with_the_same_weights(
    cli: Callable[..., Any],
    killed: Callable[..., None],
    shop_run: Any,
    shop_arguments: list[str],
    tensors: Callable[[Path], dict[str, Any]],
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    options = [*shop_arguments, "--set", f"upstream.training.checkpoint_every={EVERY}"]
    options += ["--out", str(out)]
    assert cli("prepare", *options).code == 0
    draw = random.Random(5)
    reached = 0
    for _ in range(2):
        # The first call of `advance` reports the steps of earlier processes.
        alive = draw.randint(EVERY + 2, 4 * EVERY)
        killed(STEP, alive + 1, "pretrain", *options)
        resumed = _resumes(out)
        if reached:
            assert reached - EVERY <= resumed[-1] <= reached
        reached = (resumed[-1] if resumed else 0) + alive
    # Once more in the middle of making an artefact appear: a snapshot or its history.
    killed(RENAME, 3, "pretrain", *options)
    assert reached - EVERY <= _resumes(out)[-1] <= reached
    done = cli("pretrain", *options)
    assert done.code == 0, done.text
    assert len(_resumes(out)) == 3 and "resumed upstream seed 0 at step" in done.log

    ours, theirs = out / "upstream" / "seed_0", shop_run[0] / "upstream" / "seed_0"
    for name in ("weights", *[f"snapshots/{k}" for k in range(1, 6)]):
        a, b = (tensors(folder / name / "weights") for folder in (ours, theirs))
        assert a.keys() == b.keys() and len(a) > 10
        assert all(np.array_equal(a[n], b[n]) for n in a), name
    a, b = (json.loads((folder / "results.json").read_text()) for folder in (ours, theirs))
    assert a["steps"] == b["steps"]
    for one, other in zip(a["entries"], b["entries"], strict=True):
        assert {k: v for k, v in one.items() if k != "wall_s"} == {
            k: v for k, v in other.items() if k != "wall_s"
        }
    assert not [p.name for p in ours.rglob(".*")], "leftovers of killed runs"


@pytest.mark.slow
def test_extraction_and_transfer_killed_midway_end_the_same(
    cli: Callable[..., Any],
    killed: Callable[..., None],
    shop_run: Any,
    shop_arguments: list[str],
    shop_metrics: dict[str, Any],
    assert_same_metrics: Callable[..., None],
    tmp_path: Path,
) -> None:
    out = Path(shutil.copytree(shop_run[0], tmp_path / "run"))
    for name in ("representations", "downstream", "retrieval", "exports"):
        shutil.rmtree(out / name)
    options = [*shop_arguments, "--out", str(out)]
    chosen = ["--scenarios", "home", "--methods", "feature/linear/UR"]
    killed(PART, 17, "extract", *options)
    assert not (out / "representations" / "seed_0").exists()
    assert cli("extract", *options).code == 0
    for path in (shop_run[0] / "representations" / "seed_0").rglob("*.parquet"):
        ours = pq.read_table(out / path.relative_to(shop_run[0]))
        assert ours.equals(pq.read_table(path)), path
    killed(STEP, 16, "transfer", *options, *chosen)  # in the second epoch
    assert not list((out / "downstream").rglob("results.json"))
    done = cli("transfer", *options, *chosen)
    assert done.code == 0 and "resumed home feature/linear/UR seed 0 at step" in done.log
    assert cli("evaluate", *options).code == 0
    ours = json.loads((out / "metrics.json").read_text())
    downstream = [e for e in ours["results"] if e["method"] == "feature/linear/UR"]
    assert downstream
    assert_same_metrics(ours, shop_metrics, 0.0)


@pytest.mark.slow
def test_an_interrupted_run_goes_on(
    cli: Callable[..., Any],
    shop_run: Any,
    shop_arguments: list[str],
    tensors: Callable[[Path], dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lfm4ads_tf.progress import Progress

    out = tmp_path / "run"
    shutil.copytree(shop_run[0] / "data", out / "data")
    options = [*shop_arguments, "--out", out]
    with monkeypatch.context() as patch:
        calls = iter(range(1000))

        def advance(self: Progress, steps: int) -> None:
            if next(calls) == 35:
                raise KeyboardInterrupt

        patch.setattr(Progress, "advance", advance)
        stopped = cli("pretrain", *options)
    assert stopped.code == 130 and "Interrupted" in stopped.err
    assert "Traceback" not in stopped.text
    done = cli("pretrain", *options)
    assert done.code == 0 and 10 < _resumes(out)[-1] <= 35
    name = "upstream/seed_0/weights/weights"
    a, b = tensors(out / name), tensors(shop_run[0] / name)
    assert all(np.array_equal(a[n], b[n]) for n in b)
