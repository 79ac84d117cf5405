"""Upstreams that give every task a vector of its own, through run, export and predict."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.quick_proof import quick_proof

pytestmark = pytest.mark.slow

SIZES: dict[str, Any] = {"expert_units": [8, 4], "task_units": [4]}
OPTIONS: dict[str, dict[str, Any]] = {
    "single_task": {},
    "shared_bottom": {},
    "omoe": {"experts": 2, "gate_units": [4]},
    "ple": {},
    "esmm": {"funnel": ["click", "order"]},
    "aitm": {"calibrator": 0.1},
}
METHOD = "feature/linear/UR+IR+CR_user@mix_click"


@pytest.fixture(scope="module")
def arguments(shop_arguments: list[str]) -> list[str]:
    """Without the sizes of an interaction block, which these models do not have."""
    block = next(k for k, v in enumerate(shop_arguments) if v.startswith("upstream.network.block"))
    return [*shop_arguments[: block - 1], *shop_arguments[block + 1 :]]


@pytest.mark.parametrize("name", OPTIONS)
def test_run_export_and_predict(
    name: str,
    cli: Callable[..., Any],
    shop: Any,
    arguments: list[str],
    tmp_path: Path,
) -> None:
    settings = {
        "upstream.model": name,
        f"upstream.{name}": json.dumps({**SIZES, **OPTIONS[name]}),
        "downstream.methods": json.dumps([METHOD]),
        "export.method": METHOD,
        "retrieval.enabled": "false",
        "baseline.methods": "[constant]",
    }
    given = [part for k, v in settings.items() for part in ("--set", f"{k}={v}")]
    out = tmp_path / "run"
    with quick_proof():
        options = [*arguments, *given, "--scenarios", "home", "--out", out]
        done = cli("run", *options)
    assert done.code == 0, done.text
    document = json.loads((out / "metrics.json").read_text("utf-8"))
    scored = {e["method"] for e in document["results"] if e["split"] == "test"}
    assert {"upstream", METHOD} <= scored
    states = {e["model"]: e["state"] for e in document["exports"]}
    assert states == dict.fromkeys(
        ("foundation", "user_tower", "item_tower", "ranker_home"), "published"
    )
    rows, scores = shop.folder / "shop.csv", tmp_path / "scores.parquet"
    done = cli(
        "predict", "--out", out, "--model", "foundation", "--input", rows, "--output", scores
    )
    assert done.code == 0, done.text
    predicted = pq.read_table(scores)["score"].to_numpy()
    assert len(predicted) and ((predicted > 0) & (predicted < 1)).all()
    assert np.std(predicted) > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["upstream.model=single_task", "upstream.embeddings.sets=1"],
            "set upstream.embeddings.sets=2",
        ),
        (["upstream.model=ple", "upstream.mmoe.experts=3"], "'ple' does not read upstream.mmoe"),
        (["upstream.model=esmm"], "upstream.esmm.funnel: this key is required"),
        (
            ["upstream.model=esmm", "upstream.esmm.funnel=[click, ordr]"],
            "unknown task 'ordr'. Did you mean 'order'?",
        ),
        (["upstream.model=ple", "downstream.methods=[module/isomorphic]"], "has no mix tower"),
    ],
)
def test_what_a_model_cannot_do_is_refused_before_anything_is_written(
    cli: Callable[..., Any],
    arguments: list[str],
    tmp_path: Path,
    settings: list[str],
    message: str,
) -> None:
    given = [part for setting in settings for part in ("--set", setting)]
    done = cli("run", *arguments, *given, "--out", tmp_path / "run")
    assert done.code == 2 and message in done.text, done.text
    assert not (tmp_path / "run").exists()


def test_what_is_no_funnel_is_refused_before_training(
    cli: Callable[..., Any], arguments: list[str], tmp_path: Path
) -> None:
    """The shop's orders follow clicks, and clicks do not follow orders."""
    options = {"upstream.model": "esmm", "upstream.esmm.funnel": "[order, click]"}
    given = [part for k, v in options.items() for part in ("--set", f"{k}={v}")]
    done = cli("run", *arguments, *given, "--out", tmp_path / "run")
    assert done.code == 2 and "are no funnel: click is 1 where order is 0" in done.text, done.text
    assert "strict_funnel=false" in done.text


@pytest.mark.parametrize("name", ["ple"])
def test_a_spec_of_one_task_is_refused(
    name: str, cli: Callable[..., Any], shop: Any, arguments: list[str], tmp_path: Path
) -> None:
    spec = tmp_path / "one.yaml"
    spec.write_text(shop.spec.read_text("utf-8").replace(", order: ordered", ""), "utf-8")
    given = ["--spec", spec, *arguments[2:], "--set", f"upstream.model={name}"]
    done = cli("run", *given, "--out", tmp_path / "run")
    assert done.code == 2 and "needs 2 tasks" in done.text, done.text
