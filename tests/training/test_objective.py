"""Objectives of several losses and optimizers, in a step, in a history and in a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.data.input import batches
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.losses.masked_bce import masked_bce
from lfm4ads_tf.models.foundation import FoundationModel
from lfm4ads_tf.optim.model_optimizers import ModelOptimizers
from lfm4ads_tf.optim.objective import Objective
from lfm4ads_tf.optim.optimizer_part import OptimizerPart
from lfm4ads_tf.optim.step import training_step
from lfm4ads_tf.optim.variable_paths import within
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.strict import parse
from lfm4ads_tf.training.config import OptimizerConfig, TrainingConfig
from lfm4ads_tf.training.schedule import Phase
from lfm4ads_tf.training.trainer import Trainer

NETWORK = {
    "user_tower": [4],
    "item_tower": [4],
    "block": {"layers": [{"type": "dnn", "units": [6]}]},
}
SGD = OptimizerConfig(rule="sgd", table_learning_rate=0.3, dense_learning_rate=0.01)
SLOW = OptimizerConfig(rule="sgd", table_learning_rate=0.1, dense_learning_rate=0.002)


@pytest.fixture(scope="module")
def ads(make_ads: Any, ads_features: Any) -> Any:
    return make_ads(features=ads_features("user_id", "item_id", "tab"))


def model_of(ads: Any) -> FoundationModel:
    part = {"network": NETWORK, "embeddings": {"dim": 4}}
    return build.upstream(ads.cache.layout, parse(RunConfig, {"upstream": part}, source="r"), 1)


def click(model: Any, batch: Any) -> tf.Tensor:
    return masked_bce(batch["labels"], model(batch, training=True), tf.constant([1.0, 0.0]))


def other(model: Any, batch: Any) -> tf.Tensor:
    return masked_bce(batch["labels"], model(batch, training=True), tf.constant([0.0, 1.0]))


def two_losses(model: Any) -> Callable[[Any], dict[str, tf.Tensor]]:
    return lambda batch: {"click": click(model, batch), "other": other(model, batch)}


def values_of(model: Any) -> dict[str, np.ndarray]:
    return {v.name: v.numpy() for v in model.variables}


def batch_of(ads: Any) -> tuple[Any, Any]:
    data = batches(ads.cache, ads.cache.train_rows, 64)
    return next(iter(data)), data.element_spec


def heads_apart(model: Any, losses: Any = None) -> Objective:
    """The heads learn `click` alone and fast, all else `other` alone and slowly."""
    parts = (
        OptimizerPart(SGD, "heads", within("heads"), ("click",)),
        OptimizerPart(SLOW, "rest", None, ("other",)),
    )
    return Objective(losses or two_losses(model), parts)


def test_two_losses_of_one_optimizer_are_their_sum(ads: Any) -> None:
    """Gradients of a sum: the step is that of one loss with both tasks' weights, bit for bit."""
    batch, spec = batch_of(ads)
    values = []
    for apart in (True, False):
        model = model_of(ads)

        def whole(batch: Any, model: Any = model) -> dict[str, tf.Tensor]:
            return {"sum": click(model, batch) + other(model, batch)}

        objective = Objective.of(two_losses(model) if apart else whole, SGD)
        step = training_step(
            objective, ModelOptimizers(objective, model, [model.backbone.embeddings]), spec
        )
        losses = step(batch)
        assert list(losses.terms) == (["click", "other"] if apart else ["sum"])
        values.append((float(losses.total), values_of(model)))
        assert float(losses.total) == float(sum(losses.terms.values()))
    assert values[0][0] == values[1][0]
    for name, value in values[0][1].items():
        assert np.array_equal(value, values[1][1][name]), name


def test_each_optimizer_moves_its_variables_by_its_losses_alone(ads: Any) -> None:
    """After one step every variable is where an optimizer of its own, alone, would have put it."""
    batch, spec = batch_of(ads)
    model = model_of(ads)
    objective = heads_apart(model)
    optimizers = ModelOptimizers(objective, model, [model.backbone.embeddings])
    training_step(objective, optimizers, spec)(batch)
    together = values_of(model)
    before = values_of(model_of(ads))
    alone = {}
    for loss, config in ((click, SGD), (other, SLOW)):
        single = model_of(ads)

        def one(batch: Any, single: Any = single, loss: Any = loss) -> dict[str, tf.Tensor]:
            return {"one": loss(single, batch)}

        sole = Objective.of(one, config)
        training_step(sole, ModelOptimizers(sole, single, [single.backbone.embeddings]), spec)(
            batch
        )
        alone[loss] = values_of(single)
    for name, value in together.items():
        chosen = click if "/heads/" in name else other
        assert np.array_equal(value, alone[chosen][name]), name
    moved = [name for name, value in together.items() if not np.array_equal(value, before[name])]
    assert any("heads" in name for name in moved) and any("table" in name for name in moved)
    slots = {name: list(o.first_moments) for name, o in optimizers.optimizers.items()}
    assert all("/heads/" in path for path in slots["heads"]) and slots["heads"]
    assert not any("/heads/" in path for path in slots["rest"]) and slots["rest"]
    assert optimizers.of(model.backbone.embeddings) is optimizers.optimizers["rest"]


def test_a_frozen_part_stays_and_needs_no_optimizer(ads: Any) -> None:
    batch, spec = batch_of(ads)
    model = model_of(ads)
    objective = Objective(
        two_losses(model),
        (OptimizerPart(SGD, "heads", within("heads")),),
        frozen=lambda path: not within("heads")(path),
    )
    before = values_of(model)
    optimizers = ModelOptimizers(objective, model, [model.backbone.embeddings])
    training_step(objective, optimizers, spec)(batch)
    for name, value in values_of(model).items():
        assert np.array_equal(value, before[name]) == ("/heads/" not in name), name
    assert optimizers.of(model.backbone.embeddings) is None


def test_what_does_not_fit_the_model_is_refused(ads: Any) -> None:
    model = model_of(ads)
    losses = two_losses(model)

    def built(*parts: OptimizerPart) -> ModelOptimizers:
        return ModelOptimizers(Objective(losses, parts), model, [model.backbone.embeddings])

    heads = OptimizerPart(SGD, "a", within("heads"))
    with pytest.raises(UserError, match=r"(?s)Two optimizers take '.*heads.*a and b"):
        built(heads, OptimizerPart(SGD, "b", within("shared")), OptimizerPart(SGD, "c"))
    with pytest.raises(UserError, match="No optimizer takes 'embeddings'"):
        built(heads)
    with pytest.raises(UserError, match="'b' takes no variable"):
        built(OptimizerPart(SGD), OptimizerPart(SGD, "b", within("head")))
    with pytest.raises(UserError, match="of different names"):
        built()
    with pytest.raises(UserError, match="of different names"):
        built(heads, heads)
    with pytest.raises(UserError, match=r"(?s)take all variables that no other.*a and b"):
        built(OptimizerPart(SGD, "a"), OptimizerPart(SGD, "b"))


def test_losses_that_no_optimizer_or_no_objective_has_are_refused() -> None:
    terms = {"click": tf.constant(1.0), "other": tf.constant(2.0)}

    def sums(*names: str) -> list[tf.Tensor]:
        return Objective(lambda batch: terms, (OptimizerPart(SGD, losses=names),)).sums(terms)

    with pytest.raises(UserError, match=r"unknown loss 'clik'\. Did you mean 'click'\?"):
        sums("clik", "other")
    with pytest.raises(UserError, match="No optimizer minimises the loss 'other'"):
        sums("click")
    assert [float(value) for value in sums("other", "click")] == [3.0]


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("cross", r"Did you mean 'cross_1'\?"),  # matched by its letters before
        ("head", r"Did you mean 'heads'\?"),
        ("shared/heads", "names 'shared/heads'"),  # not in this order
    ],
)
def test_a_group_that_matches_nothing_is_refused(key: str, told: str, ads: Any) -> None:
    part = {"network": {"user_tower": [4], "item_tower": [4], "block": {"layers": [
        {"type": "cross", "depth": 1}, {"type": "dnn", "units": [6]}]}}}  # fmt: skip
    config = parse(RunConfig, {"upstream": part}, source="r")
    model = build.upstream(ads.cache.layout, config, 1)
    objective = Objective.of(
        two_losses(model), OptimizerConfig(group_rates={"heads": 0.5, "dnn_1": 2.0, key: 0.1})
    )
    with pytest.raises(UserError, match=told):
        ModelOptimizers(objective, model, [model.backbone.embeddings])


def test_a_group_of_one_of_several_optimizers_is_right(ads: Any) -> None:
    """Optimizers made from one configuration share its groups; each group moves something."""
    model = model_of(ads)
    tables = [model.backbone.embeddings]

    def built(heads: dict[str, float], rest: dict[str, float]) -> ModelOptimizers:
        parts = (
            OptimizerPart(OptimizerConfig(group_rates=heads), "heads", within("heads")),
            OptimizerPart(OptimizerConfig(group_rates=rest), "rest"),
        )
        return ModelOptimizers(Objective(two_losses(model), parts), model, tables)

    both = {"dnn_1": 2.0, "heads": 0.5}
    assert set(built(both, both).optimizers) == {"heads", "rest"}
    with pytest.raises(UserError, match=r"names 'dnn_2'.* Did you mean 'dnn_1'\?"):
        built({**both, "dnn_2": 1.0}, {**both, "dnn_2": 1.0})
    with pytest.raises(UserError, match="names 'dnn_1'"):  # which the other one moves
        built({"dnn_1": 2.0}, {})


def training_of(**over: Any) -> TrainingConfig:
    return TrainingConfig(batch_size=32, checkpoint_every=4, optimizer=SGD, **over)


def trainer_of(ads: Any, folder: Path, **over: Any) -> Trainer:
    model = model_of(ads)
    return Trainer(
        model,
        [model.backbone.embeddings],
        heads_apart(model),
        ads.cache,
        training_of(),
        seed=7,
        label="test",
        folder=folder,
        tensorboard=folder / "tensorboard",
        validate=lambda: 0.5,
        quiet=True,
        **over,
    )


class Killed(Exception):
    """Stands for a kill."""


def kill_after(trainer: Trainer, steps: int) -> None:
    compiled, left = trainer._compiled, iter(range(steps))

    def stopping(dataset: Any) -> Any:
        step = compiled(dataset)

        def run(batch: Any) -> Any:
            if next(left, None) is None:
                raise Killed
            return step(batch)

        return run

    trainer._compiled = stopping  # type: ignore[method-assign]


def test_every_loss_is_in_tensorboard_and_its_mean_in_the_history(ads: Any, tmp_path: Path) -> None:
    rows = ads.cache.train_rows
    trainer = trainer_of(ads, tmp_path)
    seen: list[dict[str, float]] = []
    compiled = trainer._compiled

    def watched(dataset: Any) -> Any:
        step = compiled(dataset)

        def run(batch: Any) -> Any:
            losses = step(batch)
            seen.append({name: float(term) for name, term in losses.terms.items()})
            return losses

        return run

    trainer._compiled = watched  # type: ignore[method-assign]
    phases = [Phase("one", rows, validate=True), Phase("two", rows, validate=True)]
    result = trainer.fit(phases)
    steps = -(-len(rows) // 32)
    assert len(seen) == 2 * steps and steps > 10
    for k, entry in enumerate(result.history):
        own = seen[k * steps : (k + 1) * steps]
        for name in ("click", "other"):
            # the sum is in float64: off by less than a rounding of one of its terms
            expected = np.mean([losses[name] for losses in own])
            assert entry["losses"][name] == pytest.approx(expected, rel=1e-12)
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    for name in ("click", "other"):
        points = {e.step: make_ndarray(e.tensor_proto) for e in events.Tensors(f"train/{name}")}
        assert points == {s: np.float32(seen[s - 1][name]) for s in range(10, 2 * steps + 1, 10)}
    totals = {e.step: make_ndarray(e.tensor_proto) for e in events.Tensors("train/loss")}
    assert totals[10] == np.float32(seen[9]["click"]) + np.float32(seen[9]["other"])


@pytest.mark.slow
def test_a_resumed_run_of_several_optimizers_is_the_whole_one(ads: Any, tmp_path: Path) -> None:
    """Weights, the slots of each optimizer, and the means of the losses in the history."""
    phases = [Phase("one", ads.cache.train_rows, validate=True)]
    whole = trainer_of(ads, tmp_path / "whole")
    expected = whole.fit(phases)
    killed = trainer_of(ads, tmp_path / "killed")
    kill_after(killed, 6)  # the checkpoint is of step 4
    with pytest.raises(Killed):
        killed.fit(phases)
    resumed = trainer_of(ads, tmp_path / "killed")
    found = resumed.fit(phases)
    assert found.history == expected.history and expected.history[0]["losses"]
    for name, value in values_of(whole.model).items():
        assert np.array_equal(value, values_of(resumed.model)[name]), name
    for name, optimizer in whole.optimizers.optimizers.items():
        twin = resumed.optimizers.optimizers[name]
        for path, moment in optimizer.first_moments.items():
            assert np.array_equal(moment, twin.first_moments[path]), path
        assert int(twin.iterations) == int(optimizer.iterations) > 0


def test_a_checkpoint_of_other_optimizers_is_refused(ads: Any, tmp_path: Path) -> None:
    trainer = trainer_of(ads, tmp_path)
    trainer.checkpoint.save(0, 1, 1)
    model = model_of(ads)
    single = Trainer(
        model,
        [model.backbone.embeddings],
        Objective.of(two_losses(model), SGD),
        ads.cache,
        training_of(),
        seed=7,
        label="test",
        folder=tmp_path,
        tensorboard=tmp_path / "tensorboard",
        quiet=True,
    )
    with pytest.raises(UserError, match="is of another model or of other optimizers"):
        single.checkpoint.restore()


@pytest.mark.slow
def test_a_checkpoint_without_sums_of_losses_resumes_and_tells_no_mean(
    ads: Any, tmp_path: Path
) -> None:
    """As an earlier version wrote it: the same weights, but no mean of a phase half seen."""
    phases = [Phase("one", ads.cache.train_rows, validate=True)]
    killed = trainer_of(ads, tmp_path)
    kill_after(killed, 6)
    with pytest.raises(Killed):
        killed.fit(phases)
    (sums,) = (tmp_path / "checkpoint").glob("*.tables/losses.json")
    assert set(json.loads(sums.read_text())) == {"click", "other"}
    sums.unlink()
    whole = trainer_of(ads, tmp_path / "whole")
    whole.fit(phases)
    resumed = trainer_of(ads, tmp_path)
    (entry,) = resumed.fit(phases).history
    assert set(entry) == {"phase", "value", "step"}
    for name, value in values_of(whole.model).items():
        assert np.array_equal(value, values_of(resumed.model)[name]), name


def test_rates_are_moved_in_proportion(ads: Any) -> None:
    model = model_of(ads)
    optimizers = ModelOptimizers(heads_apart(model), model, [model.backbone.embeddings])
    optimizers.set_rates(0.6, 0.04, instead=SGD)
    rates = {
        name: (float(o.table_learning_rate), float(o.dense_learning_rate))
        for name, o in optimizers.optimizers.items()
    }
    assert rates["heads"] == (np.float32(0.6), np.float32(0.04))
    assert rates["rest"] == pytest.approx((0.2, 0.008), rel=1e-6)
    optimizers.scale_rates(0.5)
    assert float(optimizers.optimizers["rest"].table_learning_rate) == np.float32(0.05)


def test_row_weights_reach_the_step(ads: Any, tmp_path: Path) -> None:
    """Rows of weight 0 teach nothing: a training with them is one in which they have no label."""
    rows = ads.cache.train_rows
    weights = np.ones(len(ads.cache.period), np.float32)
    weights[rows[::2]] = 0.0

    def unlabelled(batch: Any, model: Any) -> dict[str, tf.Tensor]:
        hidden = tf.where(batch["weights"][:, None] > 0, batch["labels"], np.nan)
        return {"tasks": masked_bce(hidden, model(batch, training=True), tf.ones([2]))}

    def weighted(batch: Any, model: Any) -> dict[str, tf.Tensor]:
        logits = model(batch, training=True)
        return {"tasks": masked_bce(batch["labels"], logits, tf.ones([2]), batch["weights"])}

    trained = []
    for losses in (unlabelled, weighted):
        model = model_of(ads)
        trainer = Trainer(
            model,
            [model.backbone.embeddings],
            Objective.of(lambda batch, losses=losses, model=model: losses(batch, model), SGD),
            ads.cache,
            training_of(),
            seed=7,
            label="test",
            folder=tmp_path / losses.__name__,
            tensorboard=tmp_path / losses.__name__ / "tensorboard",
            row_weights=weights,
            quiet=True,
        )
        trainer.fit([Phase("one", rows)])
        trained.append(values_of(model))
    for name, value in trained[0].items():
        assert np.array_equal(value, trained[1][name]), name


@pytest.mark.parametrize("shape", ["rows", "tasks"])
def test_batches_carry_the_weights_of_their_rows(shape: str, ads: Any) -> None:
    count = len(ads.cache.period)
    weights = np.arange(count * 2, dtype=np.float32).reshape(count, 2)
    if shape == "rows":
        weights = weights[:, 0]
    order = np.random.default_rng(0).permutation(count)[:50]
    data = batches(ads.cache, order, 20, weights=weights)
    found = np.concatenate([batch["weights"].numpy() for batch in data])
    assert np.array_equal(found, weights[order])
    assert "weights" not in batches(ads.cache, order, 20).element_spec


def test_row_weights_that_do_not_fit_are_refused(ads: Any, tmp_path: Path) -> None:
    count = len(ads.cache.period)
    with pytest.raises(UserError, match=rf"one value per row.*\n.*shape \({count - 1},\)"):
        trainer_of(ads, tmp_path, row_weights=np.ones(count - 1))
    for poor in (-1.0, np.nan):
        weights = np.ones((count, 2))
        weights[3, 1] = poor
        with pytest.raises(UserError, match="finite and not negative"):
            trainer_of(ads, tmp_path, row_weights=weights)
