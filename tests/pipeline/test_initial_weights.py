"""Weights of a stored upstream in a downstream of the same run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.optim.model_optimizers import ModelOptimizers
from lfm4ads_tf.optim.objective import Objective
from lfm4ads_tf.optim.variable_paths import holds
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.pipeline.initial_weights import initialise, scenario_shares
from lfm4ads_tf.pipeline.scoring import predict_rows
from lfm4ads_tf.strict import parse
from lfm4ads_tf.training.checkpoints import write_weights
from lfm4ads_tf.transfer.methods import parse_method
from tests.rounding import assert_close

NETWORK = {
    "user_tower": [4],
    "item_tower": [4],
    "block": {"layers": [{"type": "cross", "depth": 1}, {"type": "dnn", "units": [6]}]},
}
FEATURES = ["user_id", "segment", "clicked", "item_id", "tab"]
LAYERS = ["towers", "cross_1", "dnn_1"]
PERIODS = (2, 5)


class FakeRun:
    """What `initialise` reads of a run."""

    version = 1

    def __init__(self, cache: Any, folder: Path, **downstream: Any) -> None:
        raw = {
            "upstream": {"network": NETWORK, "embeddings": {"dim": 4, "shards": 2}},
            "downstream": {"embeddings": {"dim": 3}, **downstream},
        }
        self.config = parse(RunConfig, raw, source="run")
        self.cache = cache
        self.out = folder

    def upstream(self, seed: int) -> Path:
        return self.out

    def downstream_config(self, scenario: str) -> Any:
        return self.config.downstream


@pytest.fixture(scope="module")
def ads(make_ads: Any, ads_features: Any) -> Any:
    return make_ads(features=ads_features(*FEATURES))


@pytest.fixture(scope="module")
def stored(ads: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Any]]:
    """A folder with final weights and snapshots, and the scores of each on the test rows."""
    folder = tmp_path_factory.mktemp("upstream")
    model = build.upstream(ads.cache.layout, FakeRun(ads.cache, folder).config, 1)
    rng = np.random.default_rng(2)
    scores = {}
    for name in ("weights", *(f"snapshots/{p}" for p in PERIODS)):
        for variable in model.trainable_variables:
            variable.assign(rng.normal(0, 0.4, variable.shape))
        write_weights(model, folder / name)
        scores[name] = predict_rows(model, ads.cache, ads.cache.rows_of("test"))
    (folder / "results.json").write_text("{}")
    yield folder, scores


def scores_of(run: FakeRun, name: str, scenario: str) -> np.ndarray:
    method = parse_method(name, LAYERS)
    model = build.downstream(run.cache.layout, run.config, method, {}, 0)
    initialise(run, model, method, scenario, 0)  # type: ignore[arg-type]
    return predict_rows(model, run.cache, run.cache.rows_of("test"))


@pytest.mark.parametrize(
    ("snapshot", "source"), [("final", "weights"), ("first", "snapshots/2"), (5, "snapshots/5")]
)
def test_at_step_0_the_downstream_predicts_what_that_snapshot_does(
    snapshot: Any, source: str, ads: Any, stored: tuple[Path, Any]
) -> None:
    folder, scores = stored
    run = FakeRun(ads.cache, folder, warm_start_snapshot=snapshot)
    rows = ads.cache.rows_of("test")
    for k, scenario in enumerate(ads.cache.layout.scenarios):
        mine = ads.cache.scenario[rows] == k
        ours = scores_of(run, "module/warm_start/output", scenario)
        assert_close(ours[mine], scores[source][mine], terms=40)


def test_a_snapshot_that_is_not_there_is_refused(ads: Any, stored: tuple[Path, Any]) -> None:
    run = FakeRun(ads.cache, stored[0], warm_start_snapshot=4)
    with pytest.raises(UserError, match=r"(?s)no such snapshot.*first or one of 2, 5"):
        scores_of(run, "module/warm_start/towers", ads.cache.layout.scenarios[0])


@pytest.mark.parametrize("frozen", ["", "+frozen"])
def test_what_is_trained(frozen: str, ads: Any, stored: tuple[Path, Any]) -> None:
    """Frozen parts get no slot; copied parts get their rates."""
    rates = {"tables": 0.1, "towers": 0.2, "cross_1": 0.5}
    run = FakeRun(ads.cache, stored[0], warm_start_rates=rates)
    method = parse_method(f"module/warm_start/cross_1{frozen}", LAYERS)
    model = build.downstream(run.cache.layout, run.config, method, {}, 0)
    scenario = ads.cache.layout.scenarios[0]
    training = initialise(run, model, method, scenario, 0)  # type: ignore[arg-type]
    objective = Objective.of(model.loss_terms, training.optimizer)
    optimizers = ModelOptimizers(objective, model, model.all_embeddings)
    (optimizer,) = optimizers.optimizers.values()
    moments = list(optimizer.first_moments)
    factors = training.optimizer.group_rates
    if frozen:
        assert not optimizer.table_slots
        assert not [m for m in moments if "tower" in m or "cross_1" in m]
        assert [m for m in moments if "dnn_1" in m] and [m for m in moments if "heads" in m]
        assert set(factors) == {"copied_tables"}
    else:
        assert optimizer.table_slots and all("copied_tables" in k for k in optimizer.table_slots)
        assert factors["copied_tables"] == 0.1
        for moment in moments:
            hits = [rate for key, rate in factors.items() if holds(moment, key)]
            expected = [0.2] if "_tower" in moment else [0.5] if "cross_1" in moment else []
            assert hits == expected, moment


def test_shares_of_scenarios_and_segments() -> None:
    scenario = np.array([0, 0, 1, 2, 2, 2, -1, 1])
    layout = SimpleNamespace(scenarios=("a", "b", "c"))
    rows = np.array([0, 2, 3, 6])
    cache = SimpleNamespace(layout=layout, scenario=scenario, rows_of=lambda split, name: rows)
    run: Any = SimpleNamespace(cache=cache)
    assert scenario_shares(run.cache, "b") == {1: 1.0}
    assert scenario_shares(run.cache, "segment") == {0: 0.25, 1: 0.25, 2: 0.25}
