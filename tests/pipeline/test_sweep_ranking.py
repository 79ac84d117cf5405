"""Ranking and choice against NumPy, SciPy and hand-made tables."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.metrics import holm
from lfm4ads_tf.pipeline.sweep_ranking import choice, mean_values, ranking, require_choice

METHODS = ["none", "a", "b", "c"]


def table(*rows: list[float | None]) -> dict[str, dict[int, float | None]]:
    return {m: dict(enumerate(row)) for m, row in zip(METHODS, rows, strict=False)}


@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_statistics_and_choice_equal_the_oracles(seed: int, seeds: int) -> None:
    values = np.random.default_rng(seed).normal(0.7, 0.02, (4, seeds))
    given_values = table(*values.tolist())
    found = ranking(given_values)
    order = np.argsort(-values.mean(axis=1)).tolist()
    for k, method in enumerate(METHODS):
        entry = found[method]
        assert entry["mean"] == pytest.approx(values[k].mean())
        assert entry["sd"] == pytest.approx(values[k].std(ddof=1))
        assert entry["rank"] == order.index(k) + 1
        if method == "none":
            assert entry["diff"] is None and entry["p"] is None and entry["p_holm"] is None
            continue
        assert entry["diff"] == pytest.approx((values[k] - values[0]).mean())
        expected = ttest_rel(values[k], values[0]).pvalue
        assert entry["p"] == pytest.approx(expected, rel=1e-6)
    adjusted = holm([found[m]["p"] for m in METHODS[1:]])
    assert [found[m]["p_holm"] for m in METHODS[1:]] == adjusted
    chosen = choice(given_values)
    best = 1 + int(values[1:].mean(axis=1).argmax())
    assert chosen is not None and chosen["method"] == METHODS[best]
    near = [
        METHODS[k]
        for k in range(4)
        if k != best and ttest_rel(values[best], values[k]).pvalue >= 0.05
    ]
    assert chosen["not_told_apart"] == near


def test_the_earlier_of_two_equal_ones_is_chosen_and_none_never() -> None:
    values = table([0.9, 0.9], [0.6, 0.7], [0.7, 0.8], [0.8, 0.7])
    found = choice(values)
    assert found is not None and found["method"] == "b"
    assert ranking(values)["none"]["rank"] == 1


def test_one_seed_gives_no_test() -> None:
    values = table([0.6], [0.65], [0.64])
    found = ranking(values)
    assert found["a"]["diff"] == pytest.approx(0.05)
    assert found["a"]["p"] is None and found["a"]["p_holm"] is None and found["a"]["sd"] is None
    assert choice(values) == {"method": "a", "not_told_apart": None}


def test_undefined_values_are_never_chosen() -> None:
    values = table([0.6, 0.6], [None, None], [0.5, 0.55])
    assert ranking(values)["a"]["rank"] is None and ranking(values)["a"]["mean"] is None
    found = choice(values)
    assert found is not None and found["method"] == "b"
    undefined = table([None], [None])
    assert choice(undefined) is None
    with pytest.raises(UserError, match="No configuration has an AUC"):
        require_choice(undefined)


def test_the_mean_over_scenarios_is_weighted_by_rows() -> None:
    one = table([0.6, 0.7], [0.8, 0.8])
    two = table([0.5, 0.5], [0.4, 0.6])
    lost = table([None, None], [None, None])
    empty = table([0.1, 0.1], [0.1, 0.1])
    found = mean_values([(300, one), (100, two), (1000, lost), (0, empty)])
    assert found["none"] == pytest.approx({0: 0.575, 1: 0.65})
    assert found["a"] == pytest.approx({0: 0.7, 1: 0.75})
    assert mean_values([(5, lost)])["a"] == {0: None, 1: None}
