"""The command that compares upstream models, on a small log."""

from __future__ import annotations

import copy
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from lfm4ads_tf.experiments import compared_model, multidomain, rate_training
from lfm4ads_tf.experiments.multitask import main
from lfm4ads_tf.metrics import holm
from tests.conftest import ADS_SPEC
from tests.plug_ins import plug_ins_forgotten

TIMES = ("seconds", "examples_per_s")
MODELS = "shared_bottom,mmoe"
SIZES = [
    "--set=upstream.embeddings.dim=2",
    "--set=upstream.network.user_tower=[]",
    "--set=upstream.network.item_tower=[]",
    "--set=upstream.training.epochs=2",
    "--set=upstream.training.batch_size=64",
    "--set=upstream.training.auxiliary_passes=0",
    "--set=upstream.shared_bottom={expert_units: [4], task_units: []}",
    "--set=upstream.mmoe={experts: 2, expert_units: [4], task_units: []}",
    "--rates=0.5,2",
]


@pytest.fixture(scope="module", autouse=True)
def loggers() -> Iterator[None]:
    """The command sets the package's level, and may set up logging."""
    ours, root = logging.getLogger("lfm4ads_tf"), logging.getLogger()
    before = ours.level, root.level, list(root.handlers)
    yield
    ours.setLevel(before[0])
    root.setLevel(before[1])
    root.handlers[:] = before[2]


@pytest.fixture(scope="module")
def features(ads_features: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """Few, for models that are traced fast."""
    return ads_features("user_id", "item_id", "tab", "hour")


@pytest.fixture(scope="module")
def log(
    ads_files: Callable[..., Path], features: dict[str, Any], tmp_path_factory: Any
) -> tuple[Path, Path]:
    """Spec and folder of a small log."""
    return written(ads_files, features, tmp_path_factory.mktemp("log"), lambda tables: None)


def written(
    ads_files: Callable[..., Path],
    features: dict[str, Any],
    folder: Path,
    change: Callable[[Any], None],
) -> tuple[Path, Path]:
    spec = copy.deepcopy(ADS_SPEC) | {"features": features}
    folder.mkdir(exist_ok=True)
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(spec), "utf-8")
    return path, ads_files(folder / "files", change)


def call(
    log: tuple[Path, Path],
    out: Path,
    *more: str,
    models: str = MODELS,
    command: Callable[[list[str]], int] = main,
) -> int:
    spec, folder = log
    given = ["--spec", str(spec), "--data-dir", str(folder), "--out", str(out), "--quiet"]
    sizes = [s for s in SIZES if not s.startswith("--set=upstream.") or _is_read(s, models)]
    return command([*given, "--models", models, *sizes, *more])


def _is_read(option: str, models: str) -> bool:
    """Whether an option is of a compared model, or of all of them."""
    name = option.split(".")[1].split("=")[0]
    return name in ("embeddings", "network", "training") or name in models.split(",")


def document(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "comparison.json").read_text("utf-8"))
    return found


def without_times(value: Any) -> Any:
    """What must not depend on the clock, or on where the folder lies."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k not in (*TIMES, "command")}
        return {k: without_times(v) for k, v in kept.items()}
    return [without_times(v) for v in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def made(log: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, two rates, two seeds, in one call."""
    out = tmp_path_factory.mktemp("made") / "out"
    assert call(log, out, "--seeds", "2") == 0
    return out


def test_every_model_is_scored_by_task_scenario_slice_and_seed(made: Path) -> None:
    found = document(made)
    tasks, scenarios = ("click", "love"), ("all", "t0", "t1")
    places = {
        (e["model"], e["task"], e["scenario"], e["seed"])
        for e in found["results"]
        if e["slice"] == "all"
    }
    assert places == {
        (m, t, s, k) for m in MODELS.split(",") for t in tasks for s in scenarios for k in (0, 1)
    }
    assert {"all", "cold_item", "warm_item"} <= {e["slice"] for e in found["results"]}
    assert found["rows"] == {"train": 360, "valid": 60, "test": 60}
    whole = [e for e in found["results"] if (e["scenario"], e["slice"]) == ("all", "all")]
    assert all(0 < e["metrics"]["auc"] < 1 and e["labels"] for e in whole)
    means = {
        (e["model"], e["task"]): e["metrics"]["auc"]
        for e in found["means"]
        if (e["scenario"], e["slice"]) == ("all", "all")
    }
    for (model, task), mean in means.items():
        values = [e["metrics"]["auc"] for e in whole if (e["model"], e["task"]) == (model, task)]
        assert mean["mean"] == pytest.approx(np.mean(values), abs=1e-12)
        assert mean["sd"] == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    for entry in found["comparisons"]:
        if entry["scenario"] == "all":
            ours = means[entry["model"], entry["task"]]["mean"]
            theirs = means[entry["baseline"], entry["task"]]["mean"]
            assert entry["diff_mean"] == pytest.approx(ours - theirs, abs=1e-12)
    assert {e["baseline"] for e in found["comparisons"]} == {"shared_bottom"}


def test_validation_chooses_the_rate(made: Path) -> None:
    for cost in document(made)["costs"]:
        values = {tried["rate"]: tried["valid"] for tried in cost["rates"]}
        assert set(values) == {0.5, 2.0}
        assert values[cost["rate"]] == max(values.values())
        assert cost["table_learning_rate"] == pytest.approx(0.05 * cost["rate"])
        assert cost["dense_learning_rate"] == pytest.approx(1e-3 * cost["rate"])
        assert cost["tables"] > 0 and cost["outside"] > 0
        assert all(t["epochs"] <= 2 for t in cost["rates"])


def test_the_abundance_is_that_of_the_chosen_rates_trainings(made: Path) -> None:
    found = document(made)
    rates = {cost["model"]: cost["rate"] for cost in found["costs"]}
    assert [(e["model"], e["seed"]) for e in found["abundance"]] == [
        (model, seed) for model in MODELS.split(",") for seed in (0, 1)
    ]
    for entry in found["abundance"]:
        training = f"models/{entry['model']}/rate_{rates[entry['model']]:g}/seed_{entry['seed']}"
        stored = json.loads((made / training / "results.json").read_text("utf-8"))
        assert entry["tables"] == stored["abundance"]
        assert {t["table"] for t in entry["tables"]} == {"user_id", "item_id", "tab"}
    assert 'id="abundance"' in (made / "comparison.html").read_text("utf-8")


def test_the_twin_tells_the_same_trainings_by_scenario(
    log: tuple[Path, Path],
    made: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    shutil.copytree(made, out)
    with monkeypatch.context() as patch:
        patch.setattr(rate_training.RateTraining, "trainer", None)  # nothing is trained
        assert call(log, out, "--seeds", "2", command=multidomain.main) == 0
    by_task, by_scenario = document(made), document(out)
    assert (by_task["axis"], by_scenario["axis"]) == ("task", "scenario")
    assert by_scenario["command"].startswith("lfm4ads-multidomain --spec")
    for key in ("results", "means", "costs"):
        assert without_times(by_scenario[key]) == without_times(by_task[key])
    family = [e for e in by_scenario["comparisons"] if e["scenario"] != "all"]
    tested = {e["scenario"] for e in by_scenario["means"]} - {"all"}
    assert len(tested) == 2 and len(family) == 2 * len(by_scenario["tasks"])
    known = [e for e in family if e["p"] is not None]
    assert [e["p_holm"] for e in known] == holm([e["p"] for e in known])
    assert {e["p_holm"] for e in by_task["comparisons"] if e["scenario"] != "all"} == {None}
    assert {e["scenario"] for e in by_task["leaders"]} == {"all"}
    led = {(e["scenario"], e["task"]) for e in by_scenario["leaders"]}
    assert {("all", task) for task in by_scenario["tasks"]} < led
    means = {
        (e["task"], e["scenario"], e["model"]): f"{e['metrics']['auc']['mean']:.4f}"
        for e in by_scenario["means"]
        if e["slice"] == "all"
    }
    blocks = capsys.readouterr().out.split("\n\n")
    for task, block in zip(by_scenario["tasks"], blocks, strict=True):
        head, *rows = [line.split("  ") for line in block.splitlines()[:3]]
        heads = [cell.strip() for cell in head if cell.strip()]
        assert heads[0] == f"{task}, test AUC" and heads[1] == "all" and set(heads[2:4]) == tested
        for row in rows:
            cells = [cell.strip() for cell in row if cell.strip()]
            told = [cell.split(" ")[0] for cell in cells[1:4]]
            assert told == [means[task, scenario, cells[0]] for scenario in heads[1:4]]


def test_a_log_without_scenarios_is_not_compared_by_them(
    ads_files: Callable[..., Path],
    features: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec, folder = written(ads_files, features, tmp_path / "log", lambda tables: None)
    raw = yaml.safe_load(spec.read_text("utf-8"))
    raw["keys"].pop("scenario")
    raw.pop("auxiliary")
    spec.write_text(yaml.safe_dump(raw), "utf-8")
    assert call((spec, folder), tmp_path / "out", command=multidomain.main) == 2
    told = capsys.readouterr().err
    assert "A comparison by scenario needs a feature spec with scenarios." in told
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_one_model_stands_under_two_names_and_on_a_curve(
    log: tuple[Path, Path], made: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(made, out)
    models = "wide=shared_bottom,shared_bottom"
    wide = ["--model-set", "wide:upstream.embeddings.dim=4"]
    curve = ["--curve", "width=shared_bottom,wide,wide"]
    assert call(log, out, "--seeds", "1", *wide, *curve, models=models) == 0
    found, earlier = document(out), document(made)
    costs = {cost["model"]: cost for cost in found["costs"]}
    assert costs["wide"]["tables"] == 2 * costs["shared_bottom"]["tables"]
    assert [cost["upstream"] for cost in costs.values()] == ["shared_bottom"] * 2
    before = next(c for c in earlier["costs"] if c["model"] == "shared_bottom")
    same = [without_times(c["rates"]) for c in (costs["shared_bottom"], before)]
    assert same[0] == same[1]  # it was trained before, under this name
    assert found["curves"] == {"width": ["shared_bottom", "wide"]}
    page = (out / "comparison.html").read_text("utf-8")
    assert 'id="curves"' in page and 'id="curves"' not in (made / "comparison.html").read_text()
    assert f"{costs['wide']['tables']:,}" in page.split('id="curves"')[1].split("</section")[0]


def test_no_weights_are_left(made: Path) -> None:
    kept = {path.name for path in (made / "models").rglob("*") if path.is_dir()}
    assert not kept & {"weights", "best", "checkpoint"}
    assert len(list((made / "models").rglob("predictions.npz"))) == 2 * 2


@pytest.mark.slow
def test_a_killed_call_goes_on_to_the_same_results(
    log: tuple[Path, Path], made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed when the second model is scored; before, one model was compared with one seed."""
    out = tmp_path / "out"
    assert call(log, out, "--seeds", "1", models="shared_bottom") == 0
    before = {p: p.stat().st_mtime_ns for p in (out / "models").rglob("results.json")}
    assert len(before) == 2

    def kill(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(compared_model, "read_weights", kill)
        assert call(log, out, "--seeds", "2") == 130
    assert call(log, out, "--seeds", "2") == 0
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert without_times(document(out)) == without_times(document(made))


def test_a_pair_of_one_task_is_refused(log: tuple[Path, Path], made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(made, out)
    before = (out / "comparison.json").read_bytes()
    assert call(log, out, "--seeds", "2", "--feedback-pair", "click,lyke") == 2
    assert (out / "comparison.json").read_bytes() == before


def test_nothing_is_trained_twice(
    log: tuple[Path, Path], made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(made, out)

    def refuse(*_: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(rate_training.RateTraining, "trainer", refuse)
    of = json.loads((out / "comparison_of.json").read_text("utf-8"))
    of["models"]["mmoe"]["embeddings"].pop("tables_per_width")  # of a version without this key
    (out / "comparison_of.json").write_text(json.dumps(of), "utf-8")
    pair = ("--feedback-pair", "click,love")
    assert call(log, out, "--seeds", "2", "--baseline", "mmoe", *pair) == 0
    found = document(out)
    counted = {
        e["slice"]: e["rows"]
        for e in found["results"]
        if (e["scenario"], e["task"], e["seed"]) == ("all", "click", 0)
    }
    more = ("comparable", "click_dominated", "love_dominated")
    assert 0 < sum(counted[name] for name in more) <= counted["all"] and counted["comparable"]
    page = (out / "comparison.html").read_text("utf-8")
    assert all(name in page for name in more if counted[name])
    assert found["baselines"] == ["shared_bottom", "mmoe"]
    for task in found["tasks"]:
        there = [
            e["diff_mean"]
            for e in found["comparisons"]
            if e["task"] == task and e["scenario"] == "all"
        ]
        assert len(there) == 2 and there[0] == pytest.approx(-there[1], abs=1e-15)


@pytest.mark.slow
def test_other_rates_keep_the_trainings_that_are_there(
    log: tuple[Path, Path], made: Path, tmp_path: Path
) -> None:
    """More of them, and then the one that was not chosen, whose weights are gone."""
    out = tmp_path / "out"
    shutil.copytree(made, out)
    before = {p: p.stat().st_mtime_ns for p in (out / "models").rglob("results.json")}
    assert call(log, out, "--seeds", "1", "--rates", "0.5,1,2") == 0
    assert {p: p.stat().st_mtime_ns for p in before} == before
    for cost, earlier in zip(document(out)["costs"], document(made)["costs"], strict=True):
        tried = {t["rate"]: t for t in without_times(cost["rates"])}
        assert set(tried) == {0.5, 1.0, 2.0}
        assert [tried[0.5], tried[2.0]] == without_times(earlier["rates"])
    (other,) = {0.5, 2.0} - {document(made)["costs"][0]["rate"]}
    one = ("--seeds", "1", "--rates", str(other))
    assert call(log, out, *one, models="shared_bottom") == 0
    assert call(log, tmp_path / "alone", *one, models="shared_bottom") == 0
    assert without_times(document(out)) == without_times(document(tmp_path / "alone"))


@pytest.mark.slow
def test_labels_of_test_rows_choose_nothing(
    log: tuple[Path, Path],
    made: Path,
    ads_files: Callable[..., Path],
    features: dict[str, Any],
    tmp_path: Path,
) -> None:
    """With the test labels permuted, every validation value and choice stays as it is."""

    def permute(tables: Any) -> None:
        rows = [row for row in tables["log"] if row["day"] >= 7]
        order = np.random.default_rng(3).permutation(len(rows))
        labels = [(rows[k]["click"], rows[k]["stars"]) for k in order]
        for row, (click, stars) in zip(rows, labels, strict=True):
            row["click"], row["stars"] = click, stars

    other = written(ads_files, features, tmp_path / "log", permute)
    out = tmp_path / "out"
    assert call(other, out, "--seeds", "1") == 0
    mine, theirs = document(out), document(made)
    tried = [[without_times(c["rates"]) for c in d["costs"]] for d in (mine, theirs)]
    assert tried[0] == tried[1]
    assert [c["rate"] for c in mine["costs"]] == [c["rate"] for c in theirs["costs"]]
    scored = [
        [e["metrics"]["auc"] for e in d["results"] if e["seed"] == 0 and e["slice"] == "all"]
        for d in (mine, theirs)
    ]
    assert scored[0] != scored[1]


SDEM = ["--model-set", "b:upstream.stem.axis=scenario"]
REFUSED = [
    ([], "shared_bottom,mmo", "unknown upstream model 'mmo'. Did you mean 'mmoe'?"),
    ([], "mmoe,mmoe", "--models needs names of upstream models, each one once"),
    ([], "mmoe,=mmoe", "--models needs a name before '=', without ':'"),
    ([], "mmoe,a:b=mmoe", "--models needs a name before '=', without ':'"),
    ([], "shared_bottom,ple=mmoe", "--models gives 'mmoe' the name of another upstream model"),
    ([], "shared_bottom,wide=mmo", "unknown upstream model 'mmo'. Did you mean 'mmoe'?"),
    (["--curve", "one=mmoe,wide"], MODELS, "--curve names 'wide', which is not compared"),
    (["--curve", "one"], MODELS, "--curve needs a name of its own and some of --models"),
    (["--baseline", "ple"], MODELS, "--baseline names 'ple', which is not compared"),
    (
        ["--model-set", "mmoe:upstream.mmoe.experts=2"],
        "narrow=mmoe,wide=mmoe",
        "--model-set names 'mmoe', which is not compared.\nReceived: --models narrow,wide\n"
        "Fix: name what it stands under, narrow or wide",
    ),
    (
        ["--model-set", "b:upstream.stem.mixtures_of=[somewhere]", *SDEM],
        "shared_bottom,b=stem",
        "The model 'b' cannot be compared. mixtures_of names 'somewhere'",
    ),
    (["--rates", "1,zwei"], MODELS, "--rates needs numbers"),
    (["--rates", "1,-1"], MODELS, "--rates needs positive factors"),
    (["--rates", "1,nan"], MODELS, "--rates needs positive factors"),
    (["--rates", "1,inf"], MODELS, "--rates needs positive factors"),
    (["--seeds", "0"], MODELS, "--seeds must be at least 1"),
    (["--model-set", "mmoe"], MODELS, "--model-set needs the form model:key.path=value"),
    (["--set", "upstream.training.auto=true"], MODELS, "gives upstream.training.auto, which"),
    (["--set", "upstream.ple.levels=2"], MODELS, "gives options of the model 'ple'"),
    (
        ["--model-set", "mmoe:upstream.training.batch_size=8"],
        MODELS,
        "gives one model what all models have in common",
    ),
    (
        ["--model-set", "mmoe:upstream={training: {batch_size: 8}}"],
        MODELS,
        "gives one model what all models have in common",
    ),
    ([], "shared_bottom,esmm", "The model 'esmm' cannot be compared"),
    (
        ["--set", "upstream.esmm.funnel=[love, click]"],
        "shared_bottom,esmm",
        "are no funnel: click is 1 where love is 0",
    ),
    (["--model-set", "mmoe:upstream.embeddings.sets=0"], MODELS, "upstream.embeddings.sets"),
    (
        ["--set", "upstream.embeddings.sets=1"],
        "shared_bottom,single_task",
        "has a set of embeddings for each task",
    ),
]


@pytest.mark.parametrize(("more", "models", "message"), REFUSED)
def test_what_cannot_be_compared_is_refused_before_training(
    log: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    models: str,
    message: str,
) -> None:
    out = tmp_path / "out"
    assert call(log, out, *more, models=models) == 2
    assert message in capsys.readouterr().err
    assert not (out / "models").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "upstream.training.batch_size=32"], "upstream.training.batch_size"),
        (["--set", "upstream.embeddings.dim=3"], "dim was 2, is now 3"),
        (
            ["--set", "upstream.embeddings.dim=3"],
            "Fix: give the model another name (--models wide=",
        ),
        (["--set", "split.valid_until=6.5"], "spec.split.valid_until"),
    ],
)
def test_a_folder_of_another_comparison_is_refused(
    log: tuple[Path, Path],
    made: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    message: str,
) -> None:
    before = (made / "comparison.json").read_bytes()
    assert call(log, made, *more) == 2
    said = capsys.readouterr().err
    assert "made by another comparison" in said
    assert message.split(".")[-1] in said
    assert ("another name" in said) == ("Received: models." in said)
    assert (made / "comparison.json").read_bytes() == before


def test_a_folder_of_something_else_is_not_emptied(log: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("months of work", "utf-8")
    assert call(log, tmp_path, "--overwrite") == 2
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.slow
def test_a_refused_call_binds_nothing(
    log: tuple[Path, Path], made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The mended command goes on in the folder, with what was trained there before."""
    out = tmp_path / "out"
    shutil.copytree(made, out)
    models, wrong = f"{MODELS},esmm", ("--set", "upstream.esmm.funnel=[love, click]")
    assert call(log, out, *wrong, "--seeds", "2", models=models) == 2
    assert "are no funnel" in capsys.readouterr().err
    right = ("--set", "upstream.esmm={funnel: [click, love], expert_units: [4], task_units: []}")
    before = {p: p.stat().st_mtime_ns for p in (out / "models").rglob("results.json")}
    more = ("--set", "upstream.esmm.strict_funnel=false")
    assert call(log, out, *right, *more, "--seeds", "2", models=models) == 0
    assert document(out)["models"] == models.split(",")
    assert {p: p.stat().st_mtime_ns for p in before} == before


@pytest.mark.slow
def test_a_folder_without_a_training_takes_any_comparison(
    log: tuple[Path, Path], tmp_path: Path
) -> None:
    """A first call that was refused with its data encoded."""
    out = tmp_path / "out"
    wrong = ("--set", "upstream.esmm.funnel=[love, click]")
    assert call(log, out, *wrong, models="shared_bottom,esmm") == 2
    assert (out / "data").exists()
    others = ("--set", "split.valid_until=6.5", "--seeds", "1")
    assert call(log, out, *others, models="shared_bottom") == 0


@pytest.mark.slow
def test_every_model_has_its_tables_and_unlike_labels_are_not_compared(
    log: tuple[Path, Path], made: Path, tmp_path: Path
) -> None:
    """In a folder of another comparison, which is emptied."""
    out = tmp_path / "out"
    shutil.copytree(made, out)
    settings = ("output=conditional", "funnel=[click, love]", "strict_funnel=false")
    more = ["--overwrite", "--rates=1,1e30", "--seeds=1"]
    more += [f"--set=upstream.esmm.{setting}" for setting in settings]
    assert call(log, out, *more, models="shared_bottom,single_task,esmm") == 0
    found = document(out)
    assert {c["model"]: c["sets"] for c in found["costs"]} == {
        "shared_bottom": 1,
        "single_task": 2,
        "esmm": 1,
    }
    tables = {c["model"]: c["tables"] for c in found["costs"]}
    assert tables["single_task"] == 2 * tables["shared_bottom"]
    for cost in found["costs"]:  # a loss that is no number ends a rate, not the comparison
        assert cost["rate"] == 1.0 and cost["rates"][1]["valid"] is None
        assert "diverged at step" in cost["rates"][1]["diverged"]
    unlike = [e for e in found["comparisons"] if not e["comparable"]]
    assert {(e["model"], e["task"]) for e in unlike} == {("esmm", "love")}
    assert all(e["diff_mean"] is None for e in unlike)
    assert {e["scenario"]: e["p"] for e in found["comparisons"]}["all"] is None  # one seed


def test_a_plug_in_names_a_model(
    log: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own refusal shows that the class was found."""
    path = tmp_path / "own_stubborn.py"
    path.write_text(
        "from lfm4ads_tf.errors import UserError\n"
        "from lfm4ads_tf.models.registry import UPSTREAMS\n"
        "from lfm4ads_tf.models.shared_bottom import SharedBottom\n"
        "@UPSTREAMS.register('stubborn')\n"
        "class Stubborn(SharedBottom):\n"
        "    @classmethod\n"
        "    def check_tasks(cls, config, tasks):\n"
        "        raise UserError(f'Not {len(tasks)} tasks.')\n",
        "utf-8",
    )
    with plug_ins_forgotten():
        given = ("--plugin", str(path))
        assert call(log, tmp_path / "out", *given, models="shared_bottom,stubborn") == 2
    said = capsys.readouterr().err
    assert "The model 'stubborn' cannot be compared" in said and "Not 2 tasks." in said
