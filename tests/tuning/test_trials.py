"""Trials against the run's own trainer."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.optim.objective import Objective
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.pipeline.scoring import mean_auc, predict_rows
from lfm4ads_tf.strict import parse
from lfm4ads_tf.training.schedule import Phase, final_pass, walk
from lfm4ads_tf.training.trainer import Trainer
from lfm4ads_tf.tuning import trials as module
from lfm4ads_tf.tuning.settings import Settings
from lfm4ads_tf.tuning.trials import TrialModel, Trials

NETWORK = {
    "user_tower": [4],
    "item_tower": [4],
    "block": {"layers": [{"type": "dnn", "units": [6], "dropout": 0.2}]},
}
FEATURES = ["user_id", "user_click", "clicked", "item_id", "tab"]
FIRST = Settings(32, 0.1, 0.01, dropout=0.2)
OTHER = Settings(64, 0.4, 0.003, dropout=0.2)
DAY = 5  # the last training day: held


@pytest.fixture(scope="module")
def ads(make_ads: Any, ads_features: Any) -> Any:
    return make_ads(features=ads_features(*FEATURES))


class World:
    """Trials on a cache, and what each point of a curve saw and scored."""

    def __init__(self, cache: Any) -> None:
        self.cache = cache
        rows = cache.train_rows
        held = cache.period[rows] == DAY
        self.rows, self.held = rows[~held], rows[held]
        self.scores: list[np.ndarray] = []
        self.scored: list[np.ndarray] = []
        self.weights: list[dict[str, np.ndarray]] = []
        self.trials = Trials(
            cache,
            self.rows,
            self.held,
            cache.auxiliary_rows,
            seed=7,
            make=self.make,
            score=self.score,
        )

    def make(self, settings: Settings) -> TrialModel:
        raw = {"upstream": {"network": NETWORK, "embeddings": {"dim": 4, "shards": 2}}}
        config = parse(RunConfig, raw, source="test")
        own = settings.apply(config.upstream)
        whole = config.model_copy(update={"upstream": own})
        model = build.upstream(self.cache.layout, whole, 1)
        objective = Objective.of(model.loss_terms, own.training.optimizer)
        return TrialModel(model, [model.backbone.embeddings], objective, own.training)

    def score(self, model: Any, rows: np.ndarray) -> float | None:
        self.scores.append(predict_rows(model, self.cache, rows))
        self.scored.append(rows)
        self.weights.append({v.name: v.numpy() for v in model.variables})
        return mean_auc(self.cache, rows, self.scores[-1])

    def curve(self, settings: Settings, kind: Any, count: int = 2, fraction: float = 1.0) -> Any:
        values = list(islice(self.trials(settings, kind, fraction), count))
        return values, self.scores[-count:]


@pytest.fixture(scope="module")
def worlds(ads: Any) -> Callable[[Settings, Any], tuple[World, Any]]:
    """A world with one trial and no other one before it, and the trial's curve."""
    known: dict[Any, tuple[World, Any]] = {}

    def run(settings: Settings, kind: Any) -> tuple[World, Any]:
        if (settings, kind) not in known:
            world = World(ads.cache)
            known[settings, kind] = world, world.curve(settings, kind)
        return known[settings, kind]

    return run


@pytest.fixture(scope="module")
def alone(worlds: Callable[[Settings, Any], tuple[World, Any]]) -> Callable[[Settings, Any], Any]:
    """The curve of a trial with no other one before it."""
    return lambda settings, kind: worlds(settings, kind)[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["epochs", "chain"])
def test_a_trial_is_what_the_runs_own_trainer_makes(
    ads: Any, tmp_path: Path, alone: Any, kind: str
) -> None:
    settings = Settings(32, 0.1, 0.01, dropout=0.2, replay=1, final_decay=0.5)
    if kind == "epochs":
        settings = FIRST
    values, scores = alone(settings, kind)
    world = World(ads.cache)
    made = world.make(settings)
    training = made.training
    auxiliary = Phase("auxiliary_0", ads.cache.auxiliary_rows)
    if kind == "chain":
        phases = [*walk(training, world.rows, ads.cache.period[world.rows])]
        points = [phases[-1].name, "final_1"]
        phases.append(final_pass(training, world.rows, 0))
        assert phases[-1].rate == 0.5
    else:
        points = ["epoch_1", "epoch_2"]
        phases = [Phase(name, world.rows) for name in points]
    watched = [Phase(p.name, p.rows, rate=p.rate, watch=world.held) for p in phases]
    trainer = Trainer(
        made.model,
        made.embeddings,
        made.objective,
        ads.cache,
        training,
        seed=7,
        label="test",
        folder=tmp_path,
        tensorboard=tmp_path / "tensorboard",
        watch=lambda rows: mean_auc(ads.cache, rows, predict_rows(made.model, ads.cache, rows)),
        quiet=True,
    )
    result = trainer.fit([auxiliary, *watched])
    curve = {point["phase"]: point["value"] for point in result.curve}
    assert [curve[name] for name in points] == values
    assert np.array_equal(predict_rows(made.model, ads.cache, world.held), scores[-1])


@pytest.mark.slow
def test_a_trial_after_others_is_the_trial_alone(ads: Any, alone: Any) -> None:
    """Weights, slots, rates and the counters of dropout masks all start anew, in every part."""
    world = World(ads.cache)
    for settings in (FIRST, OTHER, FIRST):
        values, scores = world.curve(settings, "epochs")
        expected_values, expected_scores = alone(settings, "epochs")
        assert values == expected_values
        for one, other in zip(scores, expected_scores, strict=True):
            assert np.array_equal(one, other)
    assert not np.array_equal(alone(FIRST, "epochs")[1][1], alone(OTHER, "epochs")[1][1])
    # another dropout is another model
    _, scores = world.curve(Settings(32, 0.1, 0.01, dropout=0.5), "epochs", 1)
    assert not np.array_equal(scores[0], alone(FIRST, "epochs")[1][0])


def test_a_fraction_keeps_whole_users_of_rows_and_held_and_is_nested(
    ads: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = ads.cache.user
    learnt: list[np.ndarray] = []

    def no_batches(cache: Any, order: np.ndarray, *args: Any, **kwargs: Any) -> Any:
        learnt.append(np.sort(order))
        return None

    monkeypatch.setattr(module, "batches", no_batches)
    monkeypatch.setattr(module._Prepared, "train", lambda *args: None)
    kept: list[set[int]] = []
    for fraction in (0.2, 0.5, 0.8, 1.0):
        world = World(ads.cache)
        learnt.clear()
        world.curve(FIRST, "epochs", 1, fraction)
        rows, held, auxiliary = learnt[-1], world.scored[-1], learnt[0]
        users = set(user[rows]) | set(user[held]) | set(user[auxiliary])
        for chosen, whole in (
            (rows, world.rows),
            (held, world.held),
            (auxiliary, ads.cache.auxiliary_rows),
        ):
            assert np.array_equal(chosen, whole[np.isin(user[whole], list(users))])
        kept.append(users)
    assert all(less <= more for less, more in zip(kept, kept[1:], strict=False))
    assert len(kept[0]) < len(kept[2]) < len(kept[-1])


@pytest.mark.slow
def test_labels_of_held_rows_do_not_change_the_weights(
    worlds: Any, make_ads: Any, ads_features: Any, changed_from: Any
) -> None:
    changed = make_ads(changed_from(DAY, labels_only=True), features=ads_features(*FEATURES))
    world, (values, _) = worlds(FIRST, "epochs")
    other = World(changed.cache)
    assert other.curve(FIRST, "epochs")[0] != values  # the labels are others
    for name, value in world.weights[-1].items():
        assert np.array_equal(value, other.weights[-1][name]), name
