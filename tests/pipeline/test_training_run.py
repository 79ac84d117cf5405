"""The one loop that trains, scores and writes, and what a configuration gives it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.main import get_command

from lfm4ads_tf.command_line import app
from lfm4ads_tf.config import Resolved, RunConfig, resolve
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.losses.masked_bce import masked_bce
from lfm4ads_tf.losses.registry import LOSSES
from lfm4ads_tf.optim.model_optimizers import ModelOptimizers
from lfm4ads_tf.optim.objective import Objective
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.pipeline.group_rates import of_the_model
from lfm4ads_tf.pipeline.named_method import read_method
from lfm4ads_tf.pipeline.pretrain import pretrain
from lfm4ads_tf.pipeline.run import Run, open_run
from lfm4ads_tf.pipeline.table_abundance import table_abundances
from lfm4ads_tf.pipeline.trained_models import load_upstream
from lfm4ads_tf.pipeline.training_run import Scores, TrainingRun
from lfm4ads_tf.pipeline.transfer import train_downstream
from lfm4ads_tf.strict import parse

OFF = ("upstream.training.auto=false", "downstream.training.auto=false")


@pytest.fixture(scope="module")
def prepared(ads_run: Callable[..., Run]) -> Run:
    return ads_run(*OFF, "downstream.training.epochs=1", "downstream.methods=[none]")


@pytest.fixture(scope="module")
def trained(prepared: Run) -> Run:
    pretrain(prepared, 0)
    train_downstream(prepared, "t0", read_method(prepared, "none"), 0)
    return prepared


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text("utf-8"))
    return found


def test_results_hold_their_keys_in_order_and_the_mean_of_each_loss(trained: Run) -> None:
    upstream = results(trained.upstream(0))
    assert list(upstream) == [
        "history", "curve", "steps", "examples_per_s", "abundance", "unlearnt", "entries"
    ]  # fmt: skip
    downstream = results(trained.downstream("t0", "none", 0))
    assert list(downstream) == [
        "resolved", "history", "best", "steps", "examples_per_s", "representations", "unlearnt",
        "entries",
    ]  # fmt: skip
    (entry,) = downstream["history"]
    assert list(entry) == ["phase", "value", "step", "losses"]
    assert list(entry["losses"]) == ["tasks"] and 0.1 < entry["losses"]["tasks"] < 3
    first = downstream["entries"][0]
    assert list(first)[:7] == [
        "stage", "scenario", "method", "refresh", "seed", "split", "wall_s"
    ]  # fmt: skip
    stored = np.load(trained.downstream("t0", "none", 0) / "predictions.npz")
    assert list(stored)[:3] == ["valid_rows", "valid_frozen", "valid_daily"]


def test_the_abundance_is_of_the_trained_tables_over_the_rows_seen(trained: Run) -> None:
    cache, model = trained.cache, load_upstream(trained, 0)
    rows = np.concatenate([cache.auxiliary_rows, cache.train_rows])
    found = results(trained.upstream(0))["abundance"]
    assert found == table_abundances(model.all_embeddings, cache, rows)
    assert [entry["table"] for entry in found] == ["user_id", "item_id", "tab"]
    assert all(1 <= entry["joined"] <= min(entry["rows"], entry["width"]) for entry in found)


@pytest.mark.parametrize(
    "part",
    ["upstream.training", "downstream.training", "retrieval.training", "retrieval.projection"],
)
def test_a_folder_may_keep_another_number_of_checkpoints(trained: Run, part: str) -> None:
    given = (*OFF, "downstream.training.epochs=1", "downstream.methods=[none]")
    spec = trained.out.parent / "spec.yaml"
    Run(trained.out, resolve(spec, [*given, f"{part}.keep_checkpoints=3"]))
    with pytest.raises(UserError, match="made from another configuration"):
        Run(trained.out, resolve(spec, [*given, f"{part}.batch_size=77"]))


def test_the_unfinished_training_goes_on_from_a_kept_checkpoint(
    ads_run: Callable[..., Run], caplog: pytest.LogCaptureFixture
) -> None:
    more = ("downstream.training.keep_checkpoints=2", "downstream.training.checkpoint_every=2")
    run = ads_run(*OFF, *more, "downstream.training.epochs=2", "downstream.methods=[none]")
    method = read_method(run, "none")
    train_downstream(run, "t0", method, 0)
    folder = run.downstream("t0", "none", 0)
    expected = results(folder)
    kept = sorted(int(p.stem[5:]) for p in (folder / "checkpoint").glob("ckpt-*.index"))
    assert len(kept) == 2
    (folder / "results.json").unlink()
    run.resume_from = 99
    with pytest.raises(UserError, match=f"no checkpoint 99[\\s\\S]*kept: {kept[0]} \\(step"):
        train_downstream(run, "t0", method, 0)
    run.resume_from = kept[0]
    caplog.clear()
    with caplog.at_level("INFO"):
        train_downstream(run, "t0", method, 0)
    assert run.resume_from is None and "resumed" in caplog.text
    again = results(folder)
    assert again["history"] == expected["history"] and again["steps"] == expected["steps"]
    skipped = {"wall_s"}
    for one, other in zip(again["entries"], expected["entries"], strict=True):
        assert {k: v for k, v in one.items() if k not in skipped} == {
            k: v for k, v in other.items() if k not in skipped
        }


@pytest.mark.parametrize(
    "command", ["run", "pretrain", "transfer", "retrieve", "prepare", "export"]
)
def test_commands_that_train_take_a_checkpoint(command: str) -> None:
    taken = {parameter.name for parameter in get_command(app).commands[command].params}
    assert ("resume_from" in taken) == (command not in ("prepare", "export"))
    assert "quiet" in taken


def test_a_finished_model_is_left_alone(trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, *args: Any) -> Any:
        raise AssertionError("trained again")

    monkeypatch.setattr("lfm4ads_tf.training.trainer.Trainer.fit", refuse)
    pretrain(trained, 0)
    train_downstream(trained, "t0", read_method(trained, "none"), 0)


def test_nothing_is_written_where_there_is_nothing_to_train(prepared: Run, tmp_path: Path) -> None:
    class Empty(TrainingRun):
        def trainer(self) -> None:
            return None

        def phases(self) -> Any:
            raise AssertionError

        def score(self, wall: float) -> Scores:
            raise AssertionError

        def report(self, result: Any) -> dict[str, Any]:
            raise AssertionError

    Empty(prepared, tmp_path / "model", "empty").complete()
    assert not (tmp_path / "model").exists()


def test_a_folder_from_before_there_were_losses_goes_on(trained: Run) -> None:
    path = trained.out / "config.yaml"
    before = path.read_text("utf-8")
    written = yaml.safe_load(before)
    trainings = [written["config"][part]["training"] for part in ("upstream", "downstream")]
    trainings += [written["config"]["retrieval"][key] for key in ("training", "projection")]
    for training in trainings:
        assert training.pop("loss") == "bce" and training.pop("loss_options") == {}
    try:
        path.write_text(yaml.safe_dump(written, sort_keys=False), "utf-8")
        spec, given = trained.out.parent / "spec.yaml", [*OFF, "downstream.training.epochs=1"]
        Run(trained.out, resolve(spec, given), quiet=True).begin()  # written anew, with the keys
        again = Resolved.model_validate(yaml.safe_load(path.read_text("utf-8")))
        assert again.config.upstream.training.loss == "bce"
        path.write_text(yaml.safe_dump(written, sort_keys=False), "utf-8")
        with LOSSES.added("other", masked_bce):
            other = resolve(spec, [*given, "upstream.training.loss=other"])
            with pytest.raises(UserError, match="upstream.training.loss was 'bce', is now 'other'"):
                Run(trained.out, other, quiet=True)
    finally:
        path.write_text(before, "utf-8")


def test_a_folder_goes_on_with_a_further_plug_in_and_with_a_moved_one(
    ads_run: Callable[..., Run], tmp_path: Path
) -> None:
    """Methods select a part of a run: so may the file that an adapter of theirs is in."""
    run = ads_run(*OFF)
    spec = run.out.parent / "spec.yaml"
    first, moved = tmp_path / "own_first.py", tmp_path / "moved" / "own_first_moved.py"
    moved.parent.mkdir()
    first.touch()
    Run(run.out, resolve(spec, [*OFF, f"plugins=[{first}]"]), quiet=True).begin()
    assert open_run(run.out).config.plugins == [str(first)]
    first.rename(moved)
    Run(run.out, resolve(spec, [*OFF, f"plugins=[{moved}]"]), quiet=True).begin()
    assert open_run(run.out).config.plugins == [str(moved)]
    moved.unlink()
    sys.modules.pop("lfm4ads_tf_plugin_own_first_moved")
    with pytest.raises(UserError, match="The plug-in '.*own_first_moved.py' is not there"):
        open_run(run.out)
    Run(run.out, resolve(spec, OFF), quiet=True).begin()
    moved.write_text(
        "from lfm4ads_tf.losses.masked_bce import masked_bce\n"
        "from lfm4ads_tf.losses.registry import LOSSES\n"
        "LOSSES.register('own_bce')(masked_bce)\n"
    )
    given = [*OFF, f"plugins=[{moved}]", "upstream.training.loss=own_bce"]
    try:
        with pytest.raises(UserError, match="upstream.training.loss was 'bce', is now 'own_bce'"):
            Run(run.out, resolve(spec, given), quiet=True)
    finally:
        del LOSSES._entries["own_bce"]


@pytest.mark.slow
def test_a_configured_loss_trains_the_upstream(ads_run: Callable[..., Run]) -> None:
    """Twice the cross-entropy, half the weights of the tasks: the same training."""

    def double(labels: Any, logits: Any, weights: Any, rows: Any = None, *, factor: float) -> Any:
        return masked_bce(labels, logits, factor * weights, rows)

    predictions = []
    with LOSSES.added("double", double):
        for given in (
            (),
            (
                "upstream.training.loss=double",
                "upstream.training.loss_options={factor: 2.0}",
                "upstream.training.task_weights={click: 0.5, love: 0.5}",
            ),
        ):
            run = ads_run(*OFF, *given)
            pretrain(run, 0)
            predictions.append(np.load(run.upstream(0) / "predictions.npz")["test_frozen"])
    assert np.array_equal(*predictions)  # factors of two change no digit


def test_a_retrieval_model_refuses_a_loss_over_tasks() -> None:
    with LOSSES.added("other", masked_bce):
        for part in ("training", "projection"):
            for key, value in {"loss": "other", "task_weights": {"click": 2}}.items():
                told = f"retrieval.{part}: does not read {key}; set retrieval.loss"
                with pytest.raises(UserError, match=told):
                    parse(RunConfig, {"retrieval": {part: {key: value}}}, source="run")


def test_a_group_of_another_method_moves_nothing_and_a_wrong_one_is_refused(
    ads_run: Callable[..., Run],
) -> None:
    run = ads_run(
        *OFF,
        "downstream.methods=[none,module/warm_start/output]",
        "downstream.training.optimizer.group_rates={dnn_1: 0.5, heads: 2.0}",
        "upstream.network.block.layers=[{type: dnn, units: [4]}]",
    )
    config, cache = run.config, run.cache
    training = config.downstream.training
    kept = {"none": {"heads": 2.0}, "module/warm_start/output": {"dnn_1": 0.5, "heads": 2.0}}
    for name, expected in kept.items():
        model = build.downstream(cache.layout, config, read_method(run, name), {}, 0)
        of_model = of_the_model(run, training, model, 0)
        assert of_model.optimizer.group_rates == expected, name
        objective = Objective.of(model.loss_terms, of_model.optimizer)
        ModelOptimizers(objective, model, model.all_embeddings)
        rates = {**training.optimizer.group_rates, "dn": 0.1}
        wrong = training.model_copy(
            update={"optimizer": training.optimizer.model_copy(update={"group_rates": rates})}
        )
        still = of_the_model(run, wrong, model, 0)
        objective = Objective.of(model.loss_terms, still.optimizer)
        with pytest.raises(UserError, match="names 'dn', which is neither"):
            ModelOptimizers(objective, model, model.all_embeddings)
