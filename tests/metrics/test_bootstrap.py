"""Bootstrap over users: against the exact AUC, a closed form, and draws by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.metrics import auc, auc_difference_interval, auc_interval, auc_resamples


def _log(users: int, each: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), each)
    labels = draw.integers(0, 2, len(user)).astype(np.float64)
    return labels, labels + draw.normal(size=len(user)), user


def test_value_and_bounds_are_those_of_the_drawn_logs() -> None:
    labels, scores, user = _log(40, 5)
    scores = np.round(scores, 1)  # with ties
    labels[::17] = np.nan
    found = auc_interval(labels, scores, user, resamples=50, seed=3)
    draw = np.random.default_rng(3)
    known = np.isfinite(labels)
    drawn = []
    for _ in range(50):
        chosen = draw.integers(0, 40, 40)
        rows = np.concatenate([np.flatnonzero((user == u) & known) for u in chosen])
        drawn.append(roc_auc_score(labels[rows], scores[rows]))
    assert found is not None
    assert found.value == auc(labels, scores)
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_width_is_that_of_independent_rows_where_each_user_has_one() -> None:
    labels, scores, user = _log(3000, 1)
    found = auc_interval(labels, scores, user, resamples=400)
    assert found is not None
    up, down = scores[labels == 1], scores[labels == 0]
    # The variance of a two-sample U statistic, by its projections (DeLong et al., 1988).
    of_up = (up[:, None] > down[None, :]).mean(1)
    of_down = (up[:, None] > down[None, :]).mean(0)
    deviation = np.sqrt(of_up.var() / len(up) + of_down.var() / len(down))
    assert found.high - found.low == pytest.approx(2 * 1.96 * deviation, rel=0.2)


def test_rows_of_one_user_are_drawn_together() -> None:
    labels, scores, user = _log(300, 1)
    once = auc_interval(labels, scores, user)
    again = auc_interval(np.tile(labels, 9), np.tile(scores, 9), np.tile(user, 9))
    assert once is not None and again is not None
    assert (again.low, again.high) == (pytest.approx(once.low), pytest.approx(once.high))


def test_paired_difference_leaves_out_what_both_share() -> None:
    labels, scores, user = _log(500, 4)
    same = auc_difference_interval(labels, scores, scores * 2 + 1, user)
    assert same is not None and (same.value, same.low, same.high) == (0, 0, 0)
    noise = np.random.default_rng(1).normal(size=len(scores)) * 0.1
    found = auc_difference_interval(labels, scores + noise, scores, user)
    alone = auc_interval(labels, scores, user)
    assert found is not None and alone is not None
    assert found.value == auc(labels, scores + noise) - auc(labels, scores)
    assert found.high - found.low < (alone.high - alone.low) / 3


def test_one_class_has_no_interval_and_users_must_fit() -> None:
    assert auc_interval([1, 1, np.nan], [0.1, 0.2, 0.3], [1, 2, 3]) is None
    assert auc_interval([], [], []) is None
    with pytest.raises(UserError, match="as long as the labels"):
        auc_interval([1, 0], [0.1, 0.2], [1])


def test_many_values_are_grouped_with_no_visible_change() -> None:
    labels, scores, user = _log(900, 10)  # 9,000 distinct scores
    found = auc_resamples(labels, [scores, np.round(scores, 3)], user, resamples=20, seed=5)
    assert found is not None
    assert found.values[0] == auc(labels, scores)
    draw = np.random.default_rng(5)
    for drawn in found.drawn:
        times = np.bincount(draw.integers(0, 900, 900), minlength=900)
        assert drawn[0] == pytest.approx(auc(labels, scores, times[user]), abs=2e-5)


def test_difference_of_means_is_paired_over_all_scores() -> None:
    labels, scores, user = _log(60, 5)
    noise = np.random.default_rng(2).normal(size=(3, len(scores)))
    found = auc_resamples(labels, [scores, *(scores + noise)], user, resamples=30)
    assert found is not None
    mean = found.difference([1, 2, 3], [0])
    by_hand = found.drawn[:, 1:].mean(axis=1) - found.drawn[:, 0]
    assert mean.value == pytest.approx(found.values[1:].mean() - found.values[0])
    assert (mean.low, mean.high) == tuple(np.quantile(by_hand, [0.025, 0.975]))
