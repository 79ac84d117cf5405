"""A run whose settings were searched: gone on with, refreshed, asked for predictions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from lfm4ads_tf.pipeline.run import open_run

pytestmark = pytest.mark.slow

STAGES = ("prepare", "pretrain", "extract", "transfer")
FREE = ("training.auto", "upstream.training.batch_size", "upstream.training.passes")


def test_what_a_search_chose_stays_with_the_run(
    refreshed: Any, small: list[str], cli: Callable[..., Any], tmp_path: Path
) -> None:
    pairs = zip(small[::2], small[1::2], strict=False)
    kept = [p for pair in pairs for p in pair if not any(free in pair[1] for free in FREE)]
    spec = refreshed.options[refreshed.options.index("--spec") + 1]
    options = ["--spec", spec, *kept, "--quiet", "--scenarios", "home", "--budget", "40s"]
    options += ["--set", "downstream.min_rows=50", "--set", "retrieval.enabled=false"]
    out = tmp_path / "run"

    def run_stages() -> str:
        told = ""
        for stage in STAGES:
            data = ["--data-dir", refreshed.data] if stage == "prepare" else []
            done = cli(stage, *options, *data, "--out", out)
            assert done.code == 0, done.text
            told += done.text
        return told

    assert "training of the upstream chosen" in run_stages()
    chosen = yaml.safe_load((out / "config.yaml").read_text("utf-8"))["chosen"]
    assert chosen["upstream"] and set(chosen["downstream"]) == {"home"}
    before = refreshed.digests(out)
    assert "training of" not in run_stages()  # nothing is searched or trained again
    assert refreshed.digests(out) == before

    done = cli("refresh", "--out", out, "--input", refreshed.days[6] / "shop.csv", "--quiet")
    assert done.code == 0, done.text
    child = open_run(out / "versions" / "2")
    assert child.resolved.chosen.model_dump() == chosen
    assert child.config.upstream == open_run(out).config.upstream

    log = refreshed.days[7] / "shop.csv"
    for folder in (out, child.out):
        model = "ranker_home" if folder == out else "foundation"
        target = tmp_path / f"{model}.parquet"
        done = cli("predict", "--out", folder, "--model", model, "--input", log, "--output", target)
        assert done.code == 0, done.text
        assert pq.read_table(target).num_rows
