from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from lfm4ads_tf.pipeline.learning_check import constant_logloss, unlearnt, warn_unlearnt
from lfm4ads_tf.pipeline.scoring import Slices, entries

LABELS = st.lists(st.sampled_from([0.0, 1.0, float("nan")]), max_size=30).map(np.array)


@given(LABELS, LABELS)
def test_constant_is_scikit_learns_loss_of_the_training_mean(
    train: np.ndarray, labels: np.ndarray
) -> None:
    found = constant_logloss(train, labels)
    known, seen = labels[np.isfinite(labels)], train[np.isfinite(train)]
    if not len(known) or not len(seen):
        assert found is None
    else:
        expected = log_loss(known, np.full(len(known), seen.mean()), labels=[0, 1])
        assert found == pytest.approx(expected, abs=1e-12)


def scored(ads: Any, scores: np.ndarray, scenario: str) -> list[dict[str, Any]]:
    """Entries of predictions (N,) of every task on the valid and test rows of a scenario."""
    found: list[dict[str, Any]] = []
    for split in ("valid", "test"):
        rows = ads.cache.rows_of(split, None if scenario == "all" else scenario)
        both = np.repeat(scores[rows, None], 2, axis=1)
        identity = {"stage": "upstream", "method": "upstream", "seed": 0, "wall_s": 0.0}
        for refresh in ("frozen", "daily"):
            found += entries(
                ads.cache,
                Slices(ads.cache, ads.spec),
                rows,
                both,
                scenario=scenario,
                refresh=refresh,
                split=split,
                **identity,
            )
    return found


@pytest.mark.parametrize("scenario", [None, "t1"])
def test_what_a_constant_does_as_well_is_told(
    ads: Any, caplog: pytest.LogCaptureFixture, scenario: str | None
) -> None:
    name = scenario or "all"
    click = np.nan_to_num(ads.cache.labels[:, 0], nan=0.5)
    good = 0.1 + 0.8 * click  # knows every click, and nothing of `love`
    twice = [*scored(ads, good, name), *scored(ads, good, name)]  # a log without scenarios
    poor = unlearnt(ads.cache, twice, scenario)
    assert poor == unlearnt(ads.cache, scored(ads, good, name), scenario)
    assert poor and {of["task"] for of in poor} == {"love"}
    rows, train = ads.cache.rows_of("test", scenario), ads.cache.rows_of("train", scenario)
    (of,) = [of for of in poor if of["split"] == "test"]
    love = ads.cache.labels[:, 1]
    constant = np.full(len(rows), love[train].mean(dtype=float))
    assert of["logloss_constant"] == pytest.approx(log_loss(love[rows], constant), rel=1e-9)
    assert of["scenario"] == name and of["rows"] == len(rows)

    flat = unlearnt(ads.cache, scored(ads, np.full(ads.cache.rows, 0.5), name), scenario)
    assert [(f["task"], f["split"], f["auc"]) for f in flat] == [
        (task, split, 0.5) for split in ("valid", "test") for task in ("click", "love")
    ]
    warn_unlearnt("upstream seed 0", flat)
    warn_unlearnt("upstream seed 1", [])
    (text,) = [r.getMessage() for r in caplog.records]
    assert text.startswith("upstream seed 0 is no better than a constant for 'click' on ")
    assert f"'love' on {len(rows)} test rows (AUC 0.5000, logloss 0.6931, " in text


def test_an_order_without_probabilities_and_an_undefined_one_are_told(ads: Any) -> None:
    click = np.nan_to_num(ads.cache.labels[:, 0], nan=0.5)
    poor = unlearnt(ads.cache, scored(ads, 0.98 + 0.01 * click, "all"))
    assert [of["auc"] for of in poor if of["task"] == "click"] == [1.0, 1.0]
    undefined = scored(ads, 0.1 + 0.8 * click, "all")
    undefined[0]["metrics"]["auc"] = None
    assert [of["auc"] for of in unlearnt(ads.cache, undefined[:1])] == [None]
