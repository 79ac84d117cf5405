"""Scenarios with fewer rows in a batch than a model's floor are told in one line."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lfm4ads_tf.experiments.compared_model import ComparedModel
from lfm4ads_tf.models.upstream_config import UpstreamConfig
from lfm4ads_tf.pipeline.pretrain import Pretraining
from lfm4ads_tf.pipeline.scenario_rows import scenario_rows
from lfm4ads_tf.pipeline.small_scenarios import warn_small_scenarios

BATCH = 64


def crocodile(least: int, batch: int = BATCH, auxiliary_passes: int = 1) -> UpstreamConfig:
    training = {
        "auto": False,
        "schedule": "chain",
        "batch_size": batch,
        "auxiliary_passes": auxiliary_passes,
    }
    return UpstreamConfig(model="crocodile", crocodile={"least_rows": least}, training=training)


def expected_rows(cache: Any, batch: int) -> dict[str, float]:
    """Scenario -> its expected rows in a batch of training rows, of which some have none."""
    split, scenario = np.array(cache.split), np.array(cache.scenario)
    trained = split == 0
    return {
        name: batch * float(((scenario == k) & trained).sum()) / float(trained.sum())
        for k, name in enumerate(cache.layout.scenarios)
    }


@pytest.fixture(scope="module")
def cache(make_ads: Any, ads_features: Any) -> Any:
    """Scenarios of unlike size, `past` of the auxiliary rows, later ones, and rows of none."""

    def unlike(tables: Any) -> None:
        for k, row in enumerate(tables["log"]):
            early = ("big", "big", "", "big", "small")[k % 5]
            row["tab"] = early if row["day"] < 6 else "t9"

    return make_ads(unlike, features=ads_features("user_id", "item_id")).cache


def test_expected_rows_below_the_floor_are_told_in_one_line(
    cache: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.clear()  # what encoding them said
    expected = expected_rows(cache, BATCH)
    assert expected["past"] == 0 < expected["small"] < 16 < expected["big"] < 39
    assert set(scenario_rows(cache)) - set(expected) == {"t9"}  # which no training row has
    with caplog.at_level(logging.WARNING):
        warn_small_scenarios(cache, crocodile(39), "wide")
    assert caplog.messages == [
        f"wide: 2 of 3 scenarios have fewer rows in a batch of {BATCH} on average than "
        "upstream.crocodile.least_rows: 39, and weigh as if they had so many: "
        f"'big' ({expected['big']:.3g} rows), 'small' ({expected['small']:.3g} rows)"
    ]
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        warn_small_scenarios(cache, crocodile(int(expected["small"])), "upstream")
        warn_small_scenarios(cache, UpstreamConfig(training={"batch_size": 1}), "upstream")
    assert not caplog.messages
    # no batch has more rows than there are
    with caplog.at_level(logging.WARNING):
        warn_small_scenarios(cache, crocodile(10**6, batch=10**7), "upstream")
    rows = scenario_rows(cache)
    assert f"in a batch of {len(cache.train_rows)} on" in caplog.text
    assert f"'big' ({rows['big']} rows), 'small' ({rows['small']} rows)" in caplog.text


def test_auxiliary_rows_have_batches_of_their_own_where_they_are_passed(
    cache: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.clear()
    assert not np.any(cache.scenario[cache.train_rows] == cache.layout.scenarios.index("past"))
    with caplog.at_level(logging.WARNING):
        warn_small_scenarios(cache, crocodile(50, batch=45), "upstream")
        warn_small_scenarios(cache, crocodile(50, batch=45, auxiliary_passes=0), "upstream")
    passed, left_out = caplog.messages
    assert "3 of 3" in passed and f"'past' ({len(cache.auxiliary_rows)} rows)" in passed
    assert len(cache.auxiliary_rows) < 45
    assert "2 of 2" in left_out and "'past'" not in left_out


def test_many_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    many: Any = SimpleNamespace(
        layout=SimpleNamespace(scenarios=tuple(f"s{k}" for k in range(25))),
        scenario=np.arange(25),
        train_rows=np.arange(25),
        auxiliary_rows=np.arange(0),
    )
    with caplog.at_level(logging.WARNING):
        warn_small_scenarios(many, crocodile(16), "upstream")
    assert len(caplog.messages) == 1 and caplog.messages[0].endswith(" and 15 more")
    assert "'s9'" in caplog.text and "'s10'" not in caplog.text


def test_the_first_seed_and_the_check_of_a_comparison_tell_it(
    cache: Any, caplog: pytest.LogCaptureFixture
) -> None:
    upstream = crocodile(16)
    config = SimpleNamespace(
        upstream=upstream, seed=3, representations=SimpleNamespace(snapshots="daily")
    )
    run: Any = SimpleNamespace(
        cache=cache,
        config=config,
        resolved=SimpleNamespace(config=config, chosen=None, fixed=lambda _: set()),
        upstream=lambda seed: Path(f"seed_{seed}"),
    )
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        for seed in (3, 4):
            Pretraining(run, seed, "upstream").choose()
    assert len(caplog.messages) == 1 and "'small'" in caplog.messages[0]
    model = ComparedModel("wide", SimpleNamespace(config=config), Path("out"))  # type: ignore[arg-type]
    model.__dict__ |= {"run": run, "sizes": {}}
    with caplog.at_level(logging.WARNING):
        model.check()
    told, of_comparison = caplog.messages
    assert told.startswith("upstream: ")
    assert of_comparison == told.replace("upstream: ", "wide: ")
