"""Paired intervals of mean AUCs: the simple bootstrap, and a loop that repeats rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from lfm4ads_tf.metrics import auc_difference_interval
from lfm4ads_tf.metrics import paired_bootstrap as paired_bootstrap_module
from lfm4ads_tf.metrics.paired_bootstrap import Scored, paired_bootstrap


def _part(rng: np.random.Generator, rows: int, seeds: int) -> Scored:
    labels = (rng.random(rows) < 0.4).astype(float)
    labels[::9] = np.nan
    scores = {
        name: np.round(rng.random((seeds, rows)) + gain * np.nan_to_num(labels), 1)  # with ties
        for name, gain in (("a", 0.3), ("trees", 0.2), ("b", 0.0))
    }
    return Scored(labels, rng.integers(0, 15, rows), scores)


def test_one_scenario_and_seed_is_the_simple_bootstrap() -> None:
    part = _part(np.random.default_rng(0), 300, 1)
    found = paired_bootstrap([part], "trees", resamples=50)
    assert set(found) == {"a", "b"}
    for name, interval in found.items():
        known = np.isfinite(part.labels)
        pair = (part.scores[name][0][known], part.scores["trees"][0][known])
        users = np.asarray(part.users)[known]
        expected = auc_difference_interval(
            np.asarray(part.labels)[known], *pair, users, resamples=50
        )
        assert expected is not None
        assert vars(interval) == pytest.approx(vars(expected), abs=1e-12)
        exact = [roc_auc_score(np.asarray(part.labels)[known], score) for score in pair]
        assert interval.value == pytest.approx(exact[0] - exact[1], abs=1e-12)


def test_scenarios_and_seeds_against_a_loop() -> None:
    rng = np.random.default_rng(1)
    parts = [_part(rng, rows, 2) for rows in (120, 250)]
    one_class = Scored(
        np.ones(40), np.arange(40), {n: np.ones((2, 40)) for n in "a b trees".split()}
    )
    found = paired_bootstrap([*parts, one_class], "trees", resamples=40, seed=5)

    def mean(name: str, times: np.ndarray) -> float:
        values, rows = [], []
        for part in parts:
            labels, users = np.asarray(part.labels), np.asarray(part.users)
            weight = times[users] * np.isfinite(labels)
            of = np.repeat(np.arange(len(labels)), weight.astype(int))
            values.append(np.mean([roc_auc_score(labels[of], s[of]) for s in part.scores[name]]))
            rows.append(np.isfinite(labels).sum())
        return float(np.average(values, weights=rows))

    draw = np.random.default_rng(5)
    drawn: dict[str, list[float]] = {"a": [], "b": []}
    for _ in range(40):
        times = np.bincount(draw.integers(0, 15, 15), minlength=15)
        for name, values in drawn.items():
            values.append(mean(name, times) - mean("trees", times))
    for name, values in drawn.items():
        whole = mean(name, np.ones(15)) - mean("trees", np.ones(15))
        assert found[name].value == pytest.approx(whole, abs=1e-12)
        low, high = np.quantile(values, [0.025, 0.975])
        assert (found[name].low, found[name].high) == pytest.approx((low, high), abs=1e-12)


@pytest.mark.parametrize("labels", [np.ones(5), np.full(5, np.nan), np.zeros(0)])
def test_without_both_classes_there_is_none(labels: Any) -> None:
    scores = {name: np.zeros((1, len(labels))) for name in ("a", "trees")}
    assert paired_bootstrap([Scored(labels, np.arange(len(labels)), scores)], "trees") == {}


def test_groups_of_scores_are_near_the_exact_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    """3,000 distinct scores in 500 groups."""
    rng = np.random.default_rng(2)
    labels = (rng.random(3000) < 0.3).astype(float)
    users = rng.integers(0, 60, 3000)
    scores = {
        n: (rng.random(3000) + gain * labels)[np.newaxis] for n, gain in (("a", 0.3), ("t", 0.2))
    }
    expected = auc_difference_interval(labels, scores["a"][0], scores["t"][0], users, resamples=60)
    monkeypatch.setattr(paired_bootstrap_module, "_GROUPS", 500)
    monkeypatch.setattr(paired_bootstrap_module, "_COUNTS_AT_ONCE", 1000)  # several blocks
    found = paired_bootstrap([Scored(labels, users, scores)], "t", resamples=60)["a"]
    assert expected is not None
    assert found.value == pytest.approx(expected.value, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=2e-4)
