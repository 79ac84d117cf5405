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


def crocodile(least: int, batch: int = BATCH) -> UpstreamConfig:
    training = {"auto": False, "schedule": "chain", "batch_size": batch}
    return UpstreamConfig(model="crocodile", crocodile={"least_rows": least}, training=training)


def expected_rows(cache: Any, batch: int) -> dict[str, float]:
    """Scenario -> its expected rows, from all training rows, those of no scenario among them."""
    split, scenario = np.array(cache.split), np.array(cache.scenario)
    trained = (split == 0) | (split == 3)
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
    assert expected["past"] < 8 < expected["small"] < 16 < expected["big"] < 50
    assert set(scenario_rows(cache)) - set(expected) == {"t9"}  # which no training row has
    with caplog.at_level(logging.WARNING):
        warn_small_scenarios(cache, crocodile(16), "wide")
    assert caplog.messages == [
        f"wide: 2 of 3 scenarios have fewer rows in a batch of {BATCH} on average than "
        "upstream.crocodile.least_rows: 16, and weigh as if they had so many: "
        f"'small' ({expected['small']:.3g} rows), 'past' ({expected['past']:.3g} rows)"
    ]
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        warn_small_scenarios(cache, crocodile(int(expected["past"])), "upstream")
        warn_small_scenarios(cache, UpstreamConfig(training={"batch_size": 1}), "upstream")
    assert not caplog.messages
    # no batch has more rows than there are
    with caplog.at_level(logging.WARNING):
        warn_small_scenarios(cache, crocodile(10**6, batch=10**7), "upstream")
    rows = scenario_rows(cache)
    assert f"'big' ({rows['big']} rows), 'small' ({rows['small']} rows)" in caplog.text


def test_many_are_counted(monkeypatch: pytest.MonkeyPatch, caplog: Any, cache: Any) -> None:
    monkeypatch.setattr(
        "lfm4ads_tf.pipeline.small_scenarios.scenario_rows",
        lambda _: {f"s{k}": 1 for k in range(25)},
    )
    with caplog.at_level(logging.WARNING):
        warn_small_scenarios(cache, crocodile(16), "upstream")
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
