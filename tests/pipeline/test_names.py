"""Names of the data in folders of a run, on the command line and in printed tables."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from lfm4ads_tf.config import Resolved, RunConfig
from lfm4ads_tf.features.spec_file import parse_spec
from lfm4ads_tf.pipeline import sweep
from lfm4ads_tf.pipeline.evaluate import compare
from lfm4ads_tf.pipeline.overall import overall
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.stages import Selection
from lfm4ads_tf.pipeline.tables import print_tables

NAMES = ["home_feed", "[/x]", "[bold]b"]
_CLOSE = st.text("a/._~ ", min_size=1, max_size=4)


@pytest.fixture
def run(ads_spec: dict[str, Any], tmp_path: Path) -> Run:
    return Run(tmp_path / "out", Resolved(spec=parse_spec(ads_spec), config=RunConfig()))


@given(_CLOSE, _CLOSE, _CLOSE, _CLOSE)
def test_no_two_models_share_a_folder_and_none_lies_elsewhere(
    one: str, other: str, method: str, another: str
) -> None:
    spec = parse_spec(
        {
            "name": "s",
            "log": {"files": ["log.csv"]},
            "keys": {"user": "u", "item": "i", "time": "t"},
            "tasks": {"click": "click"},
            "split": {"by": "t", "train_until": 1, "valid_until": 2},
            "features": {"u": {"owner": "user", "kind": "hashed"}},
        }
    )
    run = Run(Path("nowhere"), Resolved(spec=spec, config=RunConfig()))
    for part in (run.downstream, run.retrieval):
        first, second = part(one, method, 0), part(other, another, 0)
        assert (first == second) == ((one, method) == (other, another))
        assert len(first.relative_to(run.out).parts) == 4 and ".." not in first.parts


def test_the_folder_of_a_method_that_an_earlier_version_made_is_used(run: Run) -> None:
    parent = run.out / "downstream" / "home"
    assert run.downstream("home", "feature/linear/UR", 0).parent.name == "feature~2Flinear~2FUR"
    (parent / "feature_linear_UR").mkdir(parents=True)
    assert run.downstream("home", "feature/linear/UR", 0).parent.name == "feature_linear_UR"
    (parent / "feature~2Flinear~2FUR").mkdir()
    assert run.downstream("home", "feature/linear/UR", 0).parent.name == "feature~2Flinear~2FUR"
    assert run.downstream("home", "none", 0).parent.name == "none"


def test_a_name_with_a_comma_is_quoted() -> None:
    chosen = Selection(scenarios='home, "a,b",c d ,', methods="none,feature/mlp/UR+IR").options()
    assert chosen["scenarios"] == ["home", "a,b", "c d"]
    assert chosen["downstream"]["methods"] == ["none", "feature/mlp/UR+IR"]
    assert Selection(scenarios="").options()["scenarios"] == []


def test_tables_print_every_name_as_it_is() -> None:
    results = [
        {
            "stage": stage, "scenario": scenario, "task": "[/t]", "method": method, "slice": "all",
            "refresh": refresh, "seed": 0, "split": "test", "rows": 9, "wall_s": 1.0,
            "metrics": {"recall@10": 0.5} if stage == "retrieval" else
            {"auc": 0.5, "gauc": 0.5, "logloss": 1.0, "calibration": 1.0},
        }
        for stage, method in (("upstream", "upstream"), ("downstream", "none"),
                              ("downstream", "[/m]"), ("retrieval", "model/own"))
        for scenario in NAMES
        for refresh in ("frozen", "daily")
    ]  # fmt: skip
    document = {
        "spec": "s",
        "rows": {"train": 1, "valid": 1, "test": 1},
        "results": results,
        "comparisons": compare(results),
        "overall": overall(results, NAMES),
        "point_in_time": {NAMES[0]: True, NAMES[1]: False},
    }
    console = Console(file=io.StringIO(), width=200)
    print_tables(document, console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    for name in NAMES:
        assert f"Downstream, scenario {name}, test split" in printed
    assert printed.count("[/t]") >= 9 and "[/m]" in printed


def test_a_sweep_without_a_scenario_key_tells_each_result_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    methods = ("none", "feature/linear/UR")
    candidates: Any = [
        SimpleNamespace(method=SimpleNamespace(name=n), level="", adapter="", side="", layer="")
        for n in methods
    ]
    aucs: Any = {"none": {0: 0.5}, "feature/linear/UR": {0: 0.6}}
    monkeypatch.setattr(sweep, "_validation", lambda *_: {"click": (aucs, 9.0)})
    monkeypatch.setattr(sweep, "_layers", lambda *_: [])
    run: Any = SimpleNamespace(
        spec=SimpleNamespace(name="s", features={}, task_names=["click"]),
        config=SimpleNamespace(all_seeds=[0]),
        cache=SimpleNamespace(layout=SimpleNamespace(segments=())),
    )
    document = sweep._document(run, ["all"], candidates, None)
    told = [(e["scenario"], e["task"], e["method"]) for e in document["results"]]
    assert sorted(told) == sorted(("all", "click", name) for name in methods)
