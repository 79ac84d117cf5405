"""Stages resume, options select, and a folder of another configuration is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest


@pytest.fixture
def copied_run(shop_run: Any, tmp_path: Path) -> Path:
    """A copy of the whole run that a test may go on with."""
    return Path(shutil.copytree(shop_run[0], tmp_path / "run"))


def _times(out: Path) -> dict[str, int]:
    """When every file that a stage made was written; texts about the run itself left out."""
    skipped = ("config.yaml", "log.txt", "metrics.json", "report.html")
    return {
        str(p.relative_to(out)): p.stat().st_mtime_ns
        for p in out.rglob("*")
        if p.is_file() and p.name not in skipped
    }


def test_a_second_run_does_nothing_new(
    cli: Callable[..., Any], copied_run: Path, shop_arguments: list[str]
) -> None:
    before, metrics = _times(copied_run), (copied_run / "metrics.json").read_bytes()
    again = cli("run", *shop_arguments, "--out", copied_run, "--seeds", 2, "--scenarios", "home")
    assert again.code == 0, again.text
    assert _times(copied_run) == before
    assert (copied_run / "metrics.json").read_bytes() == metrics
    assert "exported" not in again.log and "upstream seed" not in again.log


@pytest.mark.slow
def test_stage_commands_go_on_where_the_last_one_stopped(
    cli: Callable[..., Any],
    shop_run: Any,
    shop_arguments: list[str],
    shop_metrics: dict[str, Any],
    assert_same_metrics: Callable[..., None],
    tmp_path: Path,
) -> None:
    """Stage by stage in a folder of its own, one seed: the metrics of the whole run, to 1e-6."""
    out = tmp_path / "stages"
    chosen = ["--scenarios", "home", "--methods", "none,feature/linear/UR"]
    early = cli("pretrain", *shop_arguments[4:], "--spec", shop_arguments[1], "--out", out)
    assert early.code == 2 and "prepare" in early.err
    for stage in ("prepare", "pretrain", "extract", "transfer", "evaluate"):
        done = cli(stage, *shop_arguments, "--out", out, *chosen)
        assert done.code == 0, done.text
    ours = json.loads((out / "metrics.json").read_text())
    assert {e["seed"] for e in ours["results"]} == {0}
    assert_same_metrics(ours, shop_metrics)
    theirs = shop_run[0]
    for name in ("upstream", "downstream/home/none", "downstream/home/feature~2Flinear~2FUR"):
        a = np.load(out / name / "seed_0" / "predictions.npz")
        b = np.load(theirs / name / "seed_0" / "predictions.npz")
        assert all(np.array_equal(a[k], b[k]) for k in b.files), name
    for path in (out / "representations" / "seed_0").rglob("*.parquet"):
        other = theirs / path.relative_to(out)
        assert pq.read_table(path).equals(pq.read_table(other)), path


def test_seeds_scenarios_and_methods_select(
    cli: Callable[..., Any], copied_run: Path, shop_arguments: list[str]
) -> None:
    done = cli(
        "transfer", *shop_arguments, "--out", copied_run, "--seed", 1, "--seeds", 1,
        "--scenarios", "search", "--methods", "none",
    )  # fmt: skip
    assert done.code == 0, done.text
    assert [p.name for p in (copied_run / "downstream" / "search").iterdir()] == ["none"]
    assert [p.name for p in (copied_run / "downstream/search/none").iterdir()] == ["seed_1"]
    done = cli("evaluate", *shop_arguments, "--out", copied_run, "--seed", 1, "--seeds", 1)
    assert done.code == 0, done.text
    found = json.loads((copied_run / "metrics.json").read_text())["results"]
    assert {e["seed"] for e in found} == {1}
    assert {e["scenario"] for e in found if e["stage"] == "downstream"} == {"home", "search"}


def test_an_output_folder_of_another_configuration_is_refused(
    cli: Callable[..., Any], copied_run: Path, shop_arguments: list[str]
) -> None:
    before = _times(copied_run)
    config = (copied_run / "config.yaml").read_bytes()
    other = [*shop_arguments, "--set", "upstream.training.passes=3", "--out", copied_run]
    refused = cli("prepare", *other)
    assert refused.code == 2
    assert "another configuration" in refused.err and "--overwrite" in refused.err
    assert "upstream.training.passes was 2, is now 3" in refused.err
    assert _times(copied_run) == before and (copied_run / "config.yaml").read_bytes() == config
    emptied = cli("prepare", *other, "--overwrite")
    assert emptied.code == 0, emptied.text
    kept = {p.name for p in copied_run.iterdir()}
    assert kept == {"config.yaml", "data", "log.txt"}


def test_changed_data_are_refused(
    cli: Callable[..., Any],
    make_shop: Callable[..., Any],
    shop_module: dict[str, Any],
    small: list[str],
    tmp_path: Path,
) -> None:
    own = make_shop()
    arguments = ["--spec", own.spec, "--data-dir", own.folder, *small, "--out", tmp_path / "out"]
    assert cli("prepare", *arguments).code == 0
    shop_module["write_shop"](own.folder, shop_module["shop_rows"](rows=2000))
    refused = cli("prepare", *arguments)
    assert refused.code == 2 and "changed since" in refused.err
