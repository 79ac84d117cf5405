from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.models.foundation import FoundationModel
from lfm4ads_tf.optim.objective import Objective
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.pipeline.scoring import mean_auc, predict_rows
from lfm4ads_tf.strict import parse
from lfm4ads_tf.training.checkpoints import read_weights
from lfm4ads_tf.training.config import TrainingConfig
from lfm4ads_tf.training.schedule import Phase, chain, epochs
from lfm4ads_tf.training.trainer import Trainer, TrainingResult

pytestmark = pytest.mark.processor

NETWORK = {
    "user_tower": [4],
    "item_tower": [4],
    "block": {
        "layers": [
            {"type": "cross", "depth": 1},
            {"type": "dnn", "units": [6], "dropout": 0.2},
        ]
    },
}
STEPS = 12  # of an epoch: 360 rows in batches of 32


FEATURES = ["user_id", "segment", "user_click", "clicked", "item_id", "tab"]


@pytest.fixture(scope="module")
def ads(make_ads: Any, ads_features: Any) -> Any:
    """Few features, so that a step is traced fast."""
    return make_ads(features=ads_features(*FEATURES))


class Killed(Exception):
    """Stands for a kill: nothing after it is written."""


def config(**over: Any) -> TrainingConfig:
    optimizer = {"table_learning_rate": 0.1, "dense_learning_rate": 0.01}
    base = {"batch_size": 32, "epochs": 3, "patience": 9, "checkpoint_every": 4}
    return parse(TrainingConfig, {**base, "optimizer": optimizer, **over}, source="training")


def model_of(ads: Any, shards: int = 1) -> FoundationModel:
    part = {"network": NETWORK, "embeddings": {"dim": 4, "shards": shards}}
    return build.upstream(ads.cache.layout, parse(RunConfig, {"upstream": part}, source="r"), 1)


def trainer_of(
    ads: Any,
    folder: Path,
    training: TrainingConfig,
    *,
    shards: int = 1,
    validate: Callable[[], float | None] | None = None,
    validate_start: bool = False,
    watch: bool = False,
    observe: Callable[[], dict[str, float]] | None = None,
    losses: Callable[[Any, Any], dict[str, tf.Tensor]] | None = None,
) -> Trainer:
    model = model_of(ads, shards)

    objective = Objective.of(model.loss_terms, training.optimizer)
    if losses is not None:
        objective = replace(objective, losses=lambda batch: losses(model, batch))
    return Trainer(
        model,
        [model.backbone.embeddings],
        objective,
        ads.cache,
        training,
        seed=7,
        label="test",
        folder=folder,
        tensorboard=folder / "tensorboard",
        validate=validate,
        validate_start=validate_start,
        watch=(lambda rows: mean_auc(ads.cache, rows, predict_rows(model, ads.cache, rows)))
        if watch
        else None,
        observe=observe,
        quiet=True,
    )


def kill_after(trainer: Trainer, steps: int) -> None:
    """The training stops before the step that follows `steps` of this process."""
    compiled = trainer._compiled

    def stopping(dataset: Any) -> Any:
        step, done = compiled(dataset), iter(range(steps))

        def run(batch: Any) -> Any:
            if next(counter, None) is None:
                raise Killed
            return step(batch)

        counter = trainer.__dict__.setdefault("_counter", done)
        return run

    trainer._compiled = stopping  # type: ignore[method-assign]


def slots_of(trainer: Trainer) -> dict[str, Any]:
    (optimizer,) = trainer.optimizers.optimizers.values()
    return {**optimizer.first_moments, **optimizer.table_slots}


def drawn_in(folder: Path, tag: str) -> dict[int, float]:
    """Step -> the number of that name in TensorBoard."""
    drawn = {}
    for path in (folder / "tensorboard").iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.tag == tag:
                    drawn[event.step] = float(tf.make_ndarray(value.tensor))
    return drawn


def weights_of(model: Any) -> dict[str, np.ndarray]:
    return {v.name: v.numpy() for v in model.variables}


def assert_equal_weights(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert np.array_equal(value, other[name]), name


def scripted(values: list[float | None]) -> Callable[[], float | None]:
    found: Iterator[float | None] = iter(values)
    return lambda: next(found)


def value_of(trainer: Trainer) -> Callable[[], float | None]:
    """Stands for a validation: a function of the weights alone."""
    return lambda: float(tf.reduce_sum(trainer.model.heads.shared.kernel))


@pytest.fixture(scope="module")
def uninterrupted(
    ads: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, np.ndarray], TrainingResult, dict[str, np.ndarray], Path]:
    folder = tmp_path_factory.mktemp("whole")
    trainer = trainer_of(ads, folder, config())
    trainer.validate = value_of(trainer)
    result = trainer.fit(epochs(trainer.config, ads.cache.train_rows))
    slots = slots_of(trainer)
    return weights_of(trainer.model), result, {n: v.numpy() for n, v in slots.items()}, folder


def test_it_learns(ads: Any, uninterrupted: Any) -> None:
    weights, result, *_ = uninterrupted
    initial = weights_of(model_of(ads))
    assert all(not np.array_equal(v, initial[n]) for n, v in weights.items() if "kernel" in n)
    assert result.steps == 3 * STEPS
    assert [h["phase"] for h in result.history] == ["epoch_1", "epoch_2", "epoch_3"]
    assert [h["step"] for h in result.history] == [STEPS, 2 * STEPS, 3 * STEPS]
    assert result.best == max(result.history, key=lambda h: h["value"])["phase"]
    assert result.examples_per_s is not None and result.examples_per_s > 0


def test_kills_and_restarts_do_not_change_the_result(
    ads: Any, tmp_path: Path, uninterrupted: Any, caplog: pytest.LogCaptureFixture
) -> None:
    # Before the first checkpoint, in the middle, right after an epoch's last checkpoint, ...
    resumed_at = [0, 0, 4, 2 * STEPS]
    kills = [3, 7, 2 * STEPS - 4 + 1]
    for attempt, steps in enumerate([*kills, None]):
        trainer = trainer_of(ads, tmp_path, config())
        trainer.validate = value_of(trainer)
        phases = epochs(trainer.config, ads.cache.train_rows)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            if steps is None:
                result = trainer.fit(phases)
            else:
                kill_after(trainer, steps)
                with pytest.raises(Killed):
                    trainer.fit(phases)
        said = f"resumed test at step {resumed_at[attempt]} " in caplog.text
        assert said == (resumed_at[attempt] > 0), caplog.text
    weights, expected, slots, _ = uninterrupted
    assert_equal_weights(weights_of(trainer.model), weights)
    assert result.history == expected.history
    assert (result.best, result.steps) == (expected.best, expected.steps)
    found = slots_of(trainer)
    for name, value in slots.items():
        assert np.array_equal(found[name].numpy(), value), name


@pytest.mark.slow
def test_a_kill_between_history_and_checkpoint_counts_no_epoch_twice(
    ads: Any, tmp_path: Path, uninterrupted: Any
) -> None:
    trainer = trainer_of(ads, tmp_path, config())
    trainer.validate = value_of(trainer)
    save = trainer.checkpoint._manager.save

    def stop(checkpoint_number: int) -> None:
        if trainer.checkpoint._values["phase"].numpy() == 2:
            raise Killed
        save(checkpoint_number=checkpoint_number)

    trainer.checkpoint._manager.save = stop
    with pytest.raises(Killed):
        trainer.fit(epochs(trainer.config, ads.cache.train_rows))
    trainer = trainer_of(ads, tmp_path, config())
    trainer.validate = value_of(trainer)
    result = trainer.fit(epochs(trainer.config, ads.cache.train_rows))
    assert result.history == uninterrupted[1].history
    assert_equal_weights(weights_of(trainer.model), uninterrupted[0])


def test_a_finished_run_is_not_trained_again(ads: Any, uninterrupted: Any) -> None:
    trainer = trainer_of(ads, uninterrupted[3], config())
    kill_after(trainer, 0)
    trainer.validate = value_of(trainer)
    result = trainer.fit(epochs(trainer.config, ads.cache.train_rows))
    assert result.examples_per_s is None
    assert (result.history, result.best) == (uninterrupted[1].history, uninterrupted[1].best)
    assert_equal_weights(weights_of(trainer.model), uninterrupted[0])


@pytest.mark.parametrize(
    ("values", "patience", "min_gain", "stops"),
    [
        ([], 1, 0.0, False),
        ([0.5], 1, 0.0, False),
        ([0.5, 0.6, 0.7, 0.8], 1, 0.0, False),
        ([0.5, 0.5], 1, 0.0, True),
        ([0.5, 0.5001], 1, 0.01, True),
        ([0.5, 0.5001, 0.52], 2, 0.01, False),
        ([0.7, 0.6, 0.65], 2, 0.0, True),
        ([0.7, 0.6, 0.65], 3, 0.0, False),
    ],
)
def test_stopping_rule(values: list[float], patience: int, min_gain: float, stops: bool) -> None:
    rule = SimpleNamespace(config=config(patience=patience, min_gain=min_gain))
    result = TrainingResult(history=[{"phase": "epoch", "value": v} for v in values])
    assert Trainer._stopped(rule, result) == stops  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "patience", "min_gain", "run", "best"),
    [
        ([0.5, 0.7, 0.6, 0.65, 0.9], 2, 0.0, 4, 2),
        ([0.5, 0.5, 0.5, 0.5, 0.9], 3, 0.0, 4, 1),
        ([0.6, None, 0.5, 0.9], 1, 0.0, 3, 1),
    ],
)
def test_early_stopping_restores_the_best_weights(
    ads: Any,
    tmp_path: Path,
    values: list[float | None],
    patience: int,
    min_gain: float,
    run: int,
    best: int,
) -> None:
    given = iter(values)
    seen: list[dict[str, np.ndarray]] = []

    def validate() -> float | None:
        seen.append(weights_of(trainer.model))
        return next(given)

    training = config(patience=patience, min_gain=min_gain, epochs=len(values))
    trainer = trainer_of(ads, tmp_path, training, validate=validate)
    result = trainer.fit(epochs(training, ads.cache.train_rows[:4]))
    assert len(seen) == run
    assert result.best == f"epoch_{best}"
    assert_equal_weights(weights_of(trainer.model), seen[best - 1])


@pytest.mark.slow
def test_shards_do_not_change_the_metrics(ads: Any, tmp_path: Path) -> None:
    scores = []
    for shards in (1, 4):
        trainer = trainer_of(ads, tmp_path / str(shards), config(epochs=1), shards=shards)
        trainer.fit([Phase("only", ads.cache.train_rows)])
        rows = ads.cache.rows_of("test")
        scores.append(predict_rows(trainer.model, ads.cache, rows))
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-6)
    one, other = (mean_auc(ads.cache, rows, s) for s in scores)
    assert one == pytest.approx(other, abs=1e-6)


def test_a_loss_that_is_not_finite_is_refused_before_anything_is_kept(
    ads: Any, tmp_path: Path
) -> None:
    def nothing(model: Any, batch: Any) -> dict[str, tf.Tensor]:
        whole = tf.reduce_sum(model(batch))
        return {"whole": whole, "lost": tf.stop_gradient(whole) * np.nan}

    trainer = trainer_of(ads, tmp_path, config(), losses=nothing)
    with pytest.raises(UserError, match=r"(?s)diverged at step.*loss nan in short, of lost\n"):
        trainer.fit([Phase("short", ads.cache.train_rows[:64], snapshot=1)])
    assert not (tmp_path / "snapshots").exists()
    assert trainer.checkpoint.restore().step == 0


def test_chain_snapshots_are_the_weights_after_each_period(ads: Any, tmp_path: Path) -> None:
    training = config(schedule="chain")
    trainer = trainer_of(ads, tmp_path / "chain", training)
    trainer.fit(chain(training, ads.cache))
    found = sorted(int(p.name) for p in (tmp_path / "chain" / "snapshots").iterdir())
    assert found == [0, 1, 2, 3, 4, 5, 6]
    shorter = trainer_of(ads, tmp_path / "shorter", training)
    shorter.fit(chain(training, ads.cache)[:3])  # the auxiliary rows and periods 0 and 1
    last = model_of(ads)
    read_weights(last, tmp_path / "chain" / "snapshots" / "2")
    assert_equal_weights(weights_of(last), weights_of(shorter.model))


@pytest.mark.slow
def test_the_start_is_a_candidate_but_no_epoch_of_the_stopping_rule(
    ads: Any, tmp_path: Path
) -> None:
    """Values fall after the start, then rise again below it: the start's weights come back."""
    values = iter([0.9, 0.5, 0.6, 0.6])
    trainer = trainer_of(
        ads,
        tmp_path,
        config(epochs=5, patience=1),
        validate=lambda: next(values),
        validate_start=True,
    )
    before = weights_of(trainer.model)
    result = trainer.fit(epochs(trainer.config, ads.cache.train_rows))
    assert [h["phase"] for h in result.history] == ["start", "epoch_1", "epoch_2", "epoch_3"]
    assert (result.best, result.history[0]["step"]) == ("start", 0)
    trained = [v.name for v in trainer.model.trainable_variables]
    after = weights_of(trainer.model)
    for name in trained:
        np.testing.assert_array_equal(after[name], before[name])


@pytest.mark.slow
def test_a_resumed_training_does_not_validate_its_start_again(ads: Any, tmp_path: Path) -> None:
    calls: list[int] = []

    def validate() -> float:
        calls.append(1)
        return 0.5 + 0.01 * len(calls)

    first = trainer_of(ads, tmp_path, config(), validate=validate, validate_start=True)
    kill_after(first, STEPS - 2)
    with pytest.raises(Killed):
        first.fit(epochs(first.config, ads.cache.train_rows))
    assert len(calls) == 1
    second = trainer_of(ads, tmp_path, config(), validate=validate, validate_start=True)
    result = second.fit(epochs(second.config, ads.cache.train_rows))
    assert [h["phase"] for h in result.history] == ["start", "epoch_1", "epoch_2", "epoch_3"]
    assert len(calls) == 4 and result.best == "epoch_3"


FINAL = {"schedule": "chain", "final_passes": 2, "final_decay": 0.5, "checkpoint_every": 2}


@pytest.fixture(scope="module")
def with_final_passes(ads: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Weights, result and folder of a chain with two final passes."""
    folder = tmp_path_factory.mktemp("final")
    trainer = trainer_of(ads, folder, config(**FINAL), watch=True)
    result = trainer.fit(chain(trainer.config, ads.cache))
    return weights_of(trainer.model), result, folder


@pytest.mark.slow
def test_the_served_snapshot_comes_after_the_final_passes(ads: Any, with_final_passes: Any) -> None:
    weights, result, folder = with_final_passes
    found = sorted(int(p.name) for p in (folder / "snapshots").iterdir())
    assert found == [0, 1, 2, 3, 4, 5, 6]
    last = model_of(ads)
    read_weights(last, folder / "snapshots" / "6")
    assert_equal_weights(weights_of(last), weights)
    assert result.steps == sum(-(-len(p.rows) // 32) for p in chain(config(**FINAL), ads.cache))


@pytest.mark.slow
def test_final_passes_leave_the_snapshots_before_them_as_they_are(
    ads: Any, tmp_path: Path, with_final_passes: Any
) -> None:
    training = config(schedule="chain")
    trainer = trainer_of(ads, tmp_path, training)
    trainer.fit(chain(training, ads.cache)[:-1])
    earlier = model_of(ads)
    read_weights(earlier, with_final_passes[2] / "snapshots" / "5")
    assert_equal_weights(weights_of(earlier), weights_of(trainer.model))


@pytest.mark.slow
def test_rates_fall_in_final_passes(ads: Any, tmp_path: Path) -> None:
    """A pass at a fraction of the rates is a training whose configured rates are that fraction."""
    rows, results = ads.cache.train_rows, []
    for scale, rate in ((1.0, 0.25), (0.25, 1.0)):
        training = config(
            optimizer={"table_learning_rate": 0.4 * scale, "dense_learning_rate": 0.04 * scale}
        )
        trainer = trainer_of(ads, tmp_path / str(scale), training)
        trainer.fit([Phase("one", rows, rate=rate)])
        results.append(weights_of(trainer.model))
    assert_equal_weights(*results)


@pytest.mark.slow
def test_kills_in_final_passes_change_neither_weights_nor_curve(
    ads: Any, tmp_path: Path, with_final_passes: Any, caplog: pytest.LogCaptureFixture
) -> None:
    weights, expected, _ = with_final_passes
    # In the first final pass, right after its end, then in the second one.
    kills = [expected.steps - STEPS - 3, 4, 5]
    for steps in [*kills, None]:
        trainer = trainer_of(ads, tmp_path, config(**FINAL), watch=True)
        phases = chain(trainer.config, ads.cache)
        with caplog.at_level(logging.INFO):
            if steps is None:
                result = trainer.fit(phases)
            else:
                kill_after(trainer, steps)
                with pytest.raises(Killed):
                    trainer.fit(phases)
    assert "(phase final_1, " in caplog.text and "(phase final_2, " in caplog.text
    assert_equal_weights(weights_of(trainer.model), weights)
    assert (result.curve, result.steps) == (expected.curve, expected.steps)


def test_the_curve_is_kept_and_drawn(ads: Any, with_final_passes: Any) -> None:
    _, result, folder = with_final_passes
    phases = [p for p in chain(config(**FINAL), ads.cache) if p.watch is not None]
    assert [point["phase"] for point in result.curve] == [p.name for p in phases]
    assert [point["rows"] for point in result.curve] == [len(p.watch) for p in phases]
    assert all(list(point["losses"]) == ["tasks"] for point in result.curve)
    drawn = drawn_in(folder, "valid/unlearnt")
    expected = {point["step"]: point["value"] for point in result.curve}
    assert drawn == pytest.approx(expected, abs=1e-6)


def test_numbers_are_observed_where_a_phase_is_validated_or_watched(
    ads: Any, tmp_path: Path
) -> None:
    rows = ads.cache.train_rows[:64]
    phases = [
        Phase("plain", rows),
        Phase("validated", rows, validate=True),
        Phase("watched", rows, watch=rows),
        Phase("both", rows, validate=True, watch=rows),
    ]
    numbers = iter((0.25, 0.5, 0.75))
    trainer = trainer_of(
        ads,
        tmp_path,
        config(patience=9),
        validate=lambda: 0.5,
        observe=lambda: {"mixer/tokens/erank": next(numbers)},
    )
    trainer.fit(phases)
    assert drawn_in(tmp_path, "observed/mixer/tokens/erank") == {4: 0.25, 6: 0.5, 8: 0.75}
