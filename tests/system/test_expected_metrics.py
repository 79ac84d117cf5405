"""Quality on generated data cannot slip unseen: tests/expected_metrics.json against a fresh run."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.record_expected_metrics import FIXED

TESTS = Path(__file__).resolve().parents[1]
EXPECTED: list[dict[str, Any]] = json.loads((TESTS / "expected_metrics.json").read_text("utf-8"))
_LOOP = re.compile(
    r"for stage in (?P<stages>[a-z ]+); do python train\.py \$stage (?P<options>.*); done"
)


@pytest.fixture(scope="module")
def metrics(
    cli: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """Command -> `metrics.json` that it leaves; each command is run once."""
    found = {}
    for command in dict.fromkeys(entry["command"] for entry in EXPECTED):
        out = tmp_path_factory.mktemp("expected") / "run"
        loop = _LOOP.fullmatch(command)
        assert loop is not None, command
        options = [*shlex.split(loop["options"]), *FIXED]
        spec = options[options.index("--spec") + 1]
        options[options.index("--spec") + 1] = str(TESTS.parent / spec)
        for stage in loop["stages"].split():
            done = cli(stage, *options, "--quiet", "--out", out)
            assert done.code == 0, done.text
        found[command] = json.loads((out / "metrics.json").read_text("utf-8"))
    return found


def _entry(document: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    wanted = {k: expected[k] for k in ("stage", "scenario", "task")}
    wanted |= {"method": expected["model"], "slice": "all", "refresh": "frozen", "split": "test"}
    (entry,) = [e for e in document["results"] if all(e[k] == value for k, value in wanted.items())]
    return dict(entry)


def test_the_file_has_the_documented_form() -> None:
    keys = {"data", "rows", "stage", "scenario", "model", "task", "metric", "value", "tolerance"}
    for entry in EXPECTED:
        assert set(entry) == keys | {"runs", "command"}
        assert entry["runs"] == len(entry["value"]["by_seed"]) >= 3
        values = entry["value"]["by_seed"].values()
        assert entry["value"]["mean"] == pytest.approx(sum(values) / len(values), abs=5e-5)
        # A tolerance that the recorded runs themselves would break, or that hides a slip.
        spread = max(abs(v - entry["value"]["mean"]) for v in values)
        assert spread <= entry["tolerance"] <= 0.02


@pytest.mark.slow
@pytest.mark.parametrize(
    "expected", EXPECTED, ids=lambda e: f"{e['model']}-{e['task']}-{e['metric']}"
)
def test_the_metric_is_what_was_recorded(
    metrics: dict[str, dict[str, Any]], expected: dict[str, Any]
) -> None:
    document = metrics[expected["command"]]
    assert sum(document["rows"].values()) == expected["rows"]
    found = _entry(document, expected)["metrics"]
    value = found[expected["metric"]] if expected["metric"] != "auc_gap" else (
        found["auc_best_possible"] - found["auc"]
    )  # fmt: skip
    assert value == pytest.approx(expected["value"]["mean"], abs=expected["tolerance"])


@pytest.mark.slow
def test_no_model_beats_the_best_possible(metrics: dict[str, dict[str, Any]]) -> None:
    """Above the true probabilities' AUC by more than noise would mean that labels leak."""
    for document in metrics.values():
        entries = [e for e in document["results"] if e["stage"] != "retrieval"]
        large = [e for e in entries if e["rows"] > 2000 and e["metrics"]["auc"] is not None]
        assert large
        for entry in large:
            assert entry["metrics"]["auc"] < entry["metrics"]["auc_best_possible"]
