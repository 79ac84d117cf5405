"""The searches of `training.auto` in a run folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml

from lfm4ads_tf.config import Resolved, resolve
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.pipeline import auto
from lfm4ads_tf.pipeline.auto import choose_downstream, choose_upstream
from lfm4ads_tf.pipeline.run import Run, fingerprint
from lfm4ads_tf.pipeline.stored_representations import open_store, upstream_fingerprint
from lfm4ads_tf.strict import parse
from lfm4ads_tf.tuning.settings import PATHS
from lfm4ads_tf.tuning.trials import Trials

GIVEN = {"weight_decay", "table_l2", "dense_learning_rate"}
UPSTREAM = Path("upstream") / "search.json"


def stored(run: Run, path: Path = UPSTREAM) -> dict[str, Any]:
    """`search.json` without the clock's times."""
    found: dict[str, Any] = json.loads((run.out / path).read_text("utf-8"))
    assert len(found.pop("wall_s")) == len(found["trials"])
    return found


def again(run: Run) -> Run:
    """The same command a second time."""
    return Run(run.out, resolve(run.out.parent / "spec.yaml"), quiet=True)


@pytest.fixture
def no_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any trial fails the test."""

    def refuse(*args: Any) -> Any:
        raise AssertionError("a trial was made")

    monkeypatch.setattr(Trials, "__call__", refuse)


@pytest.fixture(scope="module")
def searched(ads_run: Callable[..., Run]) -> Run:
    """A run whose settings were chosen; tests only read it."""
    run = ads_run()
    choose_upstream(run)
    choose_downstream(run, "t0")
    return run


def test_the_configuration_holds_the_choice(searched: Run) -> None:
    written = yaml.safe_load((searched.out / "config.yaml").read_text("utf-8"))
    found = stored(searched)
    assert set(written["chosen"]["upstream"]) == set(PATHS) - set(found["fixed"])
    assert set(found["fixed"]) == GIVEN | {"dropout"}  # the network has no layer that drops
    expected = {k: v for k, v in found["chosen"].items() if k not in found["fixed"]}
    assert written["chosen"]["upstream"] == expected
    assert len(found["trials"]) > 2 and found["held_rows"] > 0
    training = searched.config.upstream.training
    assert training.batch_size == found["chosen"]["batch_size"]
    assert training.final_passes == found["chosen"]["final_passes"]
    # what was given stays, here and in every trial
    assert training.optimizer.dense_learning_rate == 0.01
    assert {t["settings"]["dense_learning_rate"] for t in found["trials"]} == {0.01}


def test_a_downstream_has_settings_of_its_own(searched: Run) -> None:
    found = stored(searched, Path("downstream") / "t0" / "search.json")
    chosen = searched.resolved.chosen.downstream["t0"]
    assert chosen == {k: v for k, v in found["chosen"].items() if k not in found["fixed"]}
    assert found["rows"] + found["held_rows"] == len(searched.cache.rows_of("train", "t0"))
    training = searched.downstream_config("t0").training
    assert training.batch_size == chosen["batch_size"]
    assert searched.downstream_config("t1") == searched.config.downstream


@pytest.mark.usefixtures("no_trials")
def test_the_same_command_takes_the_choice(searched: Run) -> None:
    run = again(searched)
    choose_upstream(run)
    choose_downstream(run, "t0")
    assert run.resolved == searched.resolved
    assert run.config == searched.config


def deleted(tables: dict[str, Any]) -> None:
    """All held-out rows but one of each day."""
    log = tables["log"]
    first = {row["day"]: k for k, row in reversed(list(enumerate(log)))}
    tables["log"] = [r for k, r in enumerate(log) if r["day"] < 6 or first[r["day"]] == k]


@pytest.mark.slow
@pytest.mark.parametrize("change", ["changed", "deleted"])
def test_the_choice_is_one_of_the_training_rows_alone(
    searched: Run, ads_run: Callable[..., Run], changed_from: Any, change: str
) -> None:
    """The same again, whatever became of validation and test rows."""
    other = ads_run(change=changed_from(6) if change == "changed" else deleted)
    choose_upstream(other)
    assert stored(other) == stored(searched)
    assert other.resolved.chosen.upstream == searched.resolved.chosen.upstream


@pytest.mark.slow
def test_a_killed_search_of_the_same_run_goes_on_and_chooses_the_same(
    searched: Run, ads_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):
        """Stands for a kill."""

    run, count = ads_run(), 0
    original = Trials.__call__

    def counted(self: Trials, *args: Any) -> Any:
        nonlocal count
        count += 1
        if count == 3:
            raise Killed
        return original(self, *args)

    monkeypatch.setattr(Trials, "__call__", counted)
    with pytest.raises(Killed):
        choose_upstream(run)
    assert len(stored(run)["trials"]) == 2 and stored(run)["chosen"] is None
    walls = json.loads((run.out / UPSTREAM).read_text("utf-8"))["wall_s"]
    resumed = again(run)
    choose_upstream(resumed)
    assert count == 1 + len(stored(searched)["trials"])
    assert stored(resumed) == stored(searched)
    assert json.loads((run.out / UPSTREAM).read_text("utf-8"))["wall_s"][:2] == walls


@pytest.mark.usefixtures("no_trials")
def test_a_budget_too_short_names_the_smallest_one(searched: Run, ads_run: Any) -> None:
    run = ads_run("budget=5s")
    with pytest.raises(UserError) as error:
        choose_upstream(run)
    text = str(error.value)
    assert "too short for one trial" in text and "upstream.training.auto=false" in text
    least = text.partition("give --budget ")[2].partition("s")[0]
    assert not (run.out / "upstream").exists()
    auto._upstream_search(run).check(f"{least}s")  # what the message says is enough
    with pytest.raises(UserError):
        auto._upstream_search(run).check(f"{int(least) - 1}s")


@pytest.mark.usefixtures("no_trials")
def test_switched_off_it_changes_nothing(ads_run: Callable[..., Run]) -> None:
    off = [f"{part}.training.auto=false" for part in ("upstream", "downstream")]
    run = ads_run(*off, "budget=1s")
    choose_upstream(run)
    choose_downstream(run, "t0")
    assert run.config == run.resolved.config
    assert not list(run.out.rglob("search.json"))


@pytest.mark.usefixtures("no_trials")
def test_a_run_of_an_earlier_version_goes_on_without_a_search(ads_run: Callable[..., Run]) -> None:
    run = ads_run()
    path = run.out / "config.yaml"
    written = yaml.safe_load(path.read_text("utf-8"))
    for key in ("given", "chosen"):
        del written[key]
    del written["config"]["budget"]
    for part in ("upstream", "downstream"):
        training = written["config"][part]["training"]
        for key in ("auto", "final_passes", "final_decay", "loss", "loss_options"):
            del training[key]
    written["config"]["downstream"]["training"] |= {"epochs": 10, "patience": 1}  # as it was
    # a budget of its own is no other configuration's: it has the default
    path.write_text(yaml.safe_dump(written), "utf-8")
    (run.out / "upstream" / "seed_0").mkdir(parents=True)
    (run.out / "upstream" / "seed_0" / "manifest.json").write_text("{}")
    made = run.downstream("t0", "none", 0)
    made.mkdir(parents=True)
    (made / "results.json").write_text("{}")
    resolved = resolve(run.out.parent / "spec.yaml", ["budget=5m"])
    resumed = Run(run.out, resolved, quiet=True)
    choose_upstream(resumed)
    choose_downstream(resumed, "t0")
    assert not resumed.resolved.chosen.upstream and not resumed.resolved.chosen.downstream
    assert resumed.config.upstream == resolved.config.upstream
    # a command that opens the folder by itself, such as `refresh`, leaves it as old as it is
    Run(run.out, parse(Resolved, yaml.safe_load(path.read_text("utf-8")), source="x")).begin()
    assert "given" not in yaml.safe_load(path.read_text("utf-8"))
    Run(run.out, resolved, quiet=True)


def test_representations_of_an_earlier_version_are_known_again(ads_run: Callable[..., Run]) -> None:
    """Their digest is that of the configuration without the keys that came later."""
    run = ads_run("upstream.training.auto=false")
    upstream = run.config.upstream.model_dump(mode="json")
    for key in ("auto", "final_passes", "final_decay", "loss", "loss_options", "keep_checkpoints"):
        del upstream["training"][key]
    # its document held the options of both models
    upstream["mmoe"] = {"experts": 4, "expert_units": [256, 128], "task_units": [64]}
    others = run.config.representations.model_dump(mode="json", exclude={"aggregation_options"})
    earlier = fingerprint([run.cache.manifest["fingerprint"], 0, upstream, others])
    assert upstream_fingerprint(run, 0) == earlier
    given = ["upstream.training.auto=false", "upstream.training.keep_checkpoints=3"]
    kept = Run(run.out, resolve(run.out.parent / "spec.yaml", given))
    assert upstream_fingerprint(kept, 0) == earlier
    longer = ads_run("upstream.training.auto=false", "upstream.training.final_passes=2")
    assert upstream_fingerprint(longer, 0) != earlier


def test_representations_are_known_with_another_number_of_shards(
    ads_run: Callable[..., Run],
) -> None:
    """A version is named the same with any; one of an earlier naming is known with its own."""
    run = ads_run("upstream.training.auto=false")
    config = run.config.upstream.embeddings.model_copy(update={"shards": 4})
    upstream = run.config.upstream.model_copy(update={"embeddings": config})
    resolved = run.resolved.model_copy(
        update={"config": run.config.model_copy(update={"upstream": upstream})}
    )
    more = Run(run.out, resolved, quiet=True)  # accepted
    assert more.config.upstream.embeddings.shards == 4
    assert upstream_fingerprint(more, 0) == upstream_fingerprint(run, 0)
    store = more.representations(0)
    store.mkdir(parents=True)
    for shards, known in ((1, True), (4, True), (3, False)):
        version = f"seed_0-{upstream_fingerprint(run, 0, shards)}"
        (store / "manifest.json").write_text(json.dumps({"version": version}))
        with nullcontext() if known else pytest.raises(UserError, match="another upstream"):
            open_store(more, 0)
