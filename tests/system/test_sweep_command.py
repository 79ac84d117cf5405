"""`train.py sweep` on the shop log: ranks on validation, goes on, and its choice can be run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.stats import ttest_rel

from lfm4ads_tf.file_names import file_name

pytestmark = pytest.mark.slow

GATE = "feature/gate/CR_user@dnn_1"
START = "module/warm_start/dnn_1"
GRID = ["none", "feature/linear/UR", "module/isomorphic", GATE, START]
OPTIONS = ["--seeds", 2, "--scenarios", "home", "--layers", "dnn_1", "--adapters", "gate"]


@pytest.fixture(scope="module")
def swept(
    cli: Callable[..., Any],
    shop_run: Any,
    shop_arguments: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Any]:
    """A sweep that goes on from a whole run, whose test scores are spoilt in what it reads."""
    out = Path(shutil.copytree(shop_run[0], tmp_path_factory.mktemp("sweep") / "run"))
    for path in (out / "downstream").rglob("results.json"):
        stored = json.loads(path.read_text("utf-8"))
        for entry in stored["entries"]:
            if entry["split"] == "test":
                entry["metrics"]["auc"] = 1.0 if entry["method"] == "none" else 0.0
        path.write_text(json.dumps(stored), "utf-8")
    done = cli("sweep", *shop_arguments, "--out", out, *OPTIONS, "--task", "click")
    assert done.code == 0, done.text
    return out, done


def _values(out: Path, method: str, task: str) -> list[float]:
    """Validation AUC of seeds 0 and 1, as the downstream models' own results have it."""
    folder = file_name(method)
    found = []
    for seed in (0, 1):
        path = out / "downstream" / "home" / folder / f"seed_{seed}" / "results.json"
        found += [
            e["metrics"]["auc"]
            for e in json.loads(path.read_text("utf-8"))["entries"]
            if (e["split"], e["slice"], e["refresh"], e["task"]) == ("valid", "all", "frozen", task)
        ]
    assert len(found) == 2
    return found


def test_results_hold_the_validation_scores_of_every_configuration(swept: Any) -> None:
    out, _ = swept
    document = json.loads((out / "sweep" / "results.json").read_text("utf-8"))
    assert document["ranked_by"] == "click" and document["seeds"] == [0, 1]
    assert document["configurations"] == 4 and document["split"] == "valid"
    found = {(e["scenario"], e["task"], e["method"]): e for e in document["results"]}
    tasks = ("click", "order", "all")
    assert set(found) == {(s, t, m) for s in ("all", "home") for t in tasks for m in GRID}
    for task in ("click", "order"):
        none = _values(out, "none", task)
        for method in GRID:
            entry, values = found["home", task, method], _values(out, method, task)
            assert entry["mean"] == pytest.approx(np.mean(values))
            assert entry["seeds"] == 2
            if method != "none":
                assert entry["diff"] == pytest.approx(np.mean(values) - np.mean(none))
                expected = ttest_rel(values, none).pvalue
                assert entry["p"] == pytest.approx(expected, rel=1e-5)
                assert entry["p"] <= entry["p_holm"] <= 1
    means = {m: found["home", "click", m]["mean"] for m in GRID[1:]}
    assert document["chosen"]["home"]["method"] == max(means, key=lambda m: means[m])
    assert document["chosen"]["all"]["method"] == document["chosen"]["home"]["method"]


def test_the_terminal_and_the_page_show_every_configuration(swept: Any) -> None:
    out, done = swept
    page = (out / "sweep.html").read_text("utf-8").replace("<wbr>", "")
    for method in GRID:
        assert method in done.out and method in page
    assert "4 configurations" in done.out and "p Holm" in done.out
    assert "chosen for all scenarios" in done.out


def test_a_second_sweep_trains_nothing_and_a_wider_one_only_what_is_new(
    swept: Any, cli: Callable[..., Any], shop_arguments: list[str], tmp_path: Path
) -> None:
    out = Path(shutil.copytree(swept[0], tmp_path / "run"))
    before = {p: p.stat().st_mtime_ns for p in out.rglob("results.json")}
    page = (out / "sweep.html").read_bytes()
    again = cli("sweep", *shop_arguments, "--out", out, *OPTIONS, "--task", "click")
    assert again.code == 0, again.text
    sweeps = out / "sweep" / "results.json"
    assert all(p.stat().st_mtime_ns == t for p, t in before.items() if p != sweeps)
    assert set(out.rglob("results.json")) == set(before)
    assert (out / "sweep.html").read_bytes() == page
    one_seed = [*shop_arguments, "--out", out, "--seed", 1, "--seeds", 1, "--levels", "module"]
    one = cli("sweep", *one_seed, "--layers", "embeddings", "--scenarios", "home")
    assert one.code == 0, one.text
    assert "One seed allows no paired test" in one.out and "no test" in one.out
    new = {p.relative_to(out).as_posix() for p in out.rglob("results.json") if p not in before}
    assert new == {"downstream/home/module~2Fwarm_start~2Fembeddings/seed_1/results.json"}


def test_the_choice_is_run_with_config(
    swept: Any, cli: Callable[..., Any], shop_arguments: list[str], tmp_path: Path
) -> None:
    out = Path(shutil.copytree(swept[0], tmp_path / "run"))
    chosen = out / "sweep" / "chosen.yaml"
    keys = yaml.safe_load(chosen.read_text("utf-8"))
    best = json.loads((out / "sweep" / "results.json").read_text())["chosen"]["all"]["method"]
    assert keys["downstream"]["full"] == best
    options = [*shop_arguments, "--out", out, "--config", chosen, "--scenarios", "home"]
    for stage in ("transfer", "evaluate"):
        done = cli(stage, *options)
        assert done.code == 0, done.text
    stored = json.loads((out / "downstream/home/full/seed_0/results.json").read_text())
    assert stored["resolved"] == best
    ours, theirs = (
        np.load(out / "downstream" / "home" / file_name(m) / "seed_0" / "predictions.npz")
        for m in ("full", best)
    )
    assert np.array_equal(ours["valid_frozen"], theirs["valid_frozen"])
    found = json.loads((out / "metrics.json").read_text())["results"]
    assert "full" in {e["method"] for e in found}


def test_wrong_names_are_refused_before_anything_is_written(
    cli: Callable[..., Any], shop_arguments: list[str], tmp_path: Path
) -> None:
    arguments = ["sweep", *shop_arguments, "--out", tmp_path / "out"]
    for option, value, message in [
        ("--layers", "dn_1", "Did you mean 'dnn_1'?"),
        ("--adapters", "gates", "Did you mean 'gate'?"),
        ("--levels", "modul", "Did you mean 'module'?"),
        ("--methods", "feature/gate/CR_user@dnn_9", "'CR_user@dnn_9' is unknown"),
        ("--config", tmp_path / "absent.yaml", "cannot be read"),
    ]:
        refused = cli(*arguments, option, value)
        assert refused.code == 2, refused.text
        assert message in " ".join(refused.err.split())
        assert not (tmp_path / "out").exists()
