"""Slices by the relative amount of feedback."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.experiments.feedback_slices import FeedbackSlices


def cache_of(user: list[int], labels: list[list[float]], train: int) -> Any:
    return SimpleNamespace(
        layout=SimpleNamespace(tasks=("click", "like")),
        user=np.array(user),
        labels=np.array(labels, np.float32),
        train_rows=np.arange(train),
    )


def drawn(seed: int = 0) -> Any:
    """Users 0 to 9 with training rows, user 10 without, and 40 rows behind them."""
    rng = np.random.default_rng(seed)
    user = rng.integers(0, 10, 300)
    rates = rng.uniform(0.02, 0.9, (11, 2))
    labels = (rng.random((340, 2)) < rates[np.r_[user, rng.integers(0, 11, 40)]]).astype(float)
    labels[rng.random((340, 2)) < 0.1] = np.nan
    user = np.r_[user, np.arange(40) % 11]
    return cache_of(list(user), labels.tolist(), 300)


def test_a_row_is_in_the_slice_of_its_users_odds() -> None:
    cache = drawn()
    found = dict(FeedbackSlices(cache, ("click", "like")).of(np.arange(340)))
    assert list(found) == ["comparable", "click_dominated", "like_dominated"]
    of_user: dict[int, str | None] = {10: None}
    for u in range(10):
        odds = []
        for k in range(2):
            every = cache.labels[:300, k]
            mine = every[cache.user[:300] == u]
            rate = np.nanmean(every)
            r = (np.nansum(mine) + 10 * rate) / (np.isfinite(mine).sum() + 10)
            odds.append(r / (1 - r) / (rate / (1 - rate)))
        ratio = odds[0] / odds[1]
        of_user[u] = (
            "click_dominated" if ratio > 2 else "like_dominated" if ratio < 0.5 else "comparable"
        )
    assert len(set(of_user.values())) == 4
    for row in range(340):
        chosen = [name for name, mask in found.items() if mask[row]]
        expected = of_user[int(cache.user[row])]
        assert chosen == ([] if expected is None else [expected])


def test_later_labels_change_no_slice() -> None:
    one, other = drawn(), drawn()
    other.labels[300:] = 1 - other.labels[300:]
    rows = np.arange(340)
    for (_, a), (_, b) in zip(
        FeedbackSlices(one, ("click", "like")).of(rows),
        FeedbackSlices(other, ("click", "like")).of(rows),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (("click", "lyke"), "Did you mean 'like'"),
        (("click", "click"), "needs two tasks"),
        (("click",), "needs two tasks"),
    ],
)
def test_other_pairs_are_refused(pair: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        FeedbackSlices(drawn(), pair)


def test_a_task_of_one_class_is_refused() -> None:
    cache = drawn()
    cache.labels[:300, 1] = 0
    with pytest.raises(UserError, match="one class in training"):
        FeedbackSlices(cache, ("click", "like"))
