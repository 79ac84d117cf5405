from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm4ads_tf.training.config import TrainingConfig
from lfm4ads_tf.training.schedule import Phase, chain, epochs, walk


def cache(auxiliary: int = 3) -> Any:
    period = np.array([-1] * auxiliary + [0, 0, 2, 2, 2, 3, 4], np.int32)
    rows = np.arange(auxiliary, auxiliary + 6)  # the last row is held out
    return SimpleNamespace(
        period=period,
        train_rows=rows,
        auxiliary_rows=np.arange(auxiliary),
        rows_of=lambda split: np.arange(auxiliary + 6, auxiliary + 7),
        first_period=int(period[rows].min()),
    )


def test_order_is_a_permutation_settled_by_seed_and_name() -> None:
    rows = np.arange(100, 160)
    order = Phase("epoch_1", rows).order(1, shuffle=True)
    assert sorted(order) == rows.tolist()
    assert np.array_equal(order, Phase("epoch_1", rows).order(1, shuffle=True))
    assert not np.array_equal(order, Phase("epoch_2", rows).order(1, shuffle=True))
    assert not np.array_equal(order, Phase("epoch_1", rows).order(2, shuffle=True))
    assert np.array_equal(Phase("epoch_1", rows).order(1, shuffle=False), rows)


def test_epochs_validate_each() -> None:
    phases = epochs(TrainingConfig(epochs=3), np.arange(5))
    assert [p.name for p in phases] == ["epoch_1", "epoch_2", "epoch_3"]
    assert all(p.validate and p.snapshot is None and len(p.rows) == 5 for p in phases)


def test_chain_walks_the_periods_and_keeps_a_snapshot_after_each() -> None:
    phases = chain(TrainingConfig(schedule="chain", passes=2), cache())
    found = [(p.name, p.rows.tolist(), p.snapshot) for p in phases]
    assert found == [
        ("auxiliary_pass_0", [0, 1, 2], 0),
        ("period_0_pass_0", [3, 4], None),
        ("period_0_pass_1", [3, 4], 1),
        ("period_2_pass_0", [5, 6, 7], None),
        ("period_2_pass_1", [5, 6, 7], 3),
        ("period_3_pass_0", [8], None),
        ("period_3_pass_1", [8], 4),
    ]
    assert not any(p.validate for p in phases)
    assert len({p.name for p in phases}) == len(phases)


@pytest.mark.parametrize(("auxiliary", "passes"), [(0, 1), (3, 0)])
def test_chain_without_auxiliary_training(auxiliary: int, passes: int) -> None:
    config = TrainingConfig(schedule="chain", auxiliary_passes=passes)
    phases = chain(config, cache(auxiliary))
    assert [p.snapshot for p in phases] == [1, 3, 4]


def test_replay_mixes_in_the_rows_of_the_periods_just_before() -> None:
    phases = chain(TrainingConfig(schedule="chain", replay=1), cache(auxiliary=0))
    found = [(p.name, p.rows.tolist(), p.snapshot) for p in phases]
    assert found == [
        ("period_0_pass_0", [0, 1], 1),
        ("period_2_pass_0", [0, 1, 2, 3, 4], 3),
        ("period_3_pass_0", [2, 3, 4, 5], 4),
    ]


def test_final_passes_lie_before_the_snapshot_of_the_first_held_out_period() -> None:
    config = TrainingConfig(schedule="chain", replay=1, final_passes=2, final_decay=0.5)
    phases = chain(config, cache(auxiliary=0))
    found = [(p.name, p.rows.tolist(), p.snapshot, p.rate) for p in phases]
    assert found == [
        ("period_0_pass_0", [0, 1], 1, 1.0),
        ("period_2_pass_0", [0, 1, 2, 3, 4], 3, 1.0),
        ("period_3_pass_0", [2, 3, 4, 5], None, 1.0),
        ("final_1", [0, 1, 2, 3, 4, 5], None, 0.5),
        ("final_2", [0, 1, 2, 3, 4, 5], 4, 0.25),
    ]
    # The snapshots before it are those of the chain alone, and so are their orders.
    short = chain(config.model_copy(update={"final_passes": 0}), cache(auxiliary=0))
    for one, other in zip(short[:2], phases[:2], strict=True):
        assert (one.name, one.snapshot) == (other.name, other.snapshot)
        assert np.array_equal(one.order(3, True), other.order(3, True))


@given(st.integers(0, 3), st.integers(1, 3), st.integers(0, 3), st.integers(0, 3))
def test_what_is_watched_is_not_learnt_yet(
    auxiliary: int, passes: int, replay: int, final: int
) -> None:
    config = TrainingConfig(schedule="chain", passes=passes, replay=replay, final_passes=final)
    given = cache(auxiliary)
    phases = chain(config, given)
    learnt: set[int] = set()
    watched = []
    for phase in phases:
        learnt |= set(phase.rows.tolist())
        if phase.watch is not None:
            assert not learnt & set(phase.watch.tolist())
            watched.append(given.period[phase.watch][0])
    # every period once, but the first one without auxiliary rows, and validation after each pass
    # over all
    assert watched == [0, 2, 3][int(not auxiliary) :] + [4] * (1 + final)


def test_the_walk_of_a_search_is_the_chain_without_its_snapshots() -> None:
    config = TrainingConfig(schedule="chain", passes=2, replay=1)
    given = cache(auxiliary=0)
    phases = walk(config, given.train_rows, given.period[given.train_rows])
    for one, other in zip(phases, chain(config, given), strict=True):
        assert one.name == other.name and np.array_equal(one.rows, other.rows)
        assert one.snapshot is None


@given(st.integers(0, 80), st.integers(1, 100), st.integers(0, 3))
def test_a_window_holds_a_permutation_of_its_own_rows(count: int, window: int, seed: int) -> None:
    rows = np.arange(100, 100 + 3 * count, 3)
    phase = Phase("epoch_1", rows)
    order = phase.order(seed, True, window)
    assert np.array_equal(order, phase.order(seed, True, window))
    for start in range(0, count, window):
        part = slice(start, start + window)
        assert np.array_equal(np.sort(order[part]), rows[part])
    assert np.array_equal(phase.order(seed, False, window), rows)
    if window >= count:
        assert np.array_equal(order, phase.order(seed, True))


def test_windows_are_shuffled_by_seed_and_phase() -> None:
    rows = np.arange(400)
    orders = [Phase(n, rows).order(s, True, 40) for n in ("epoch_1", "epoch_2") for s in (0, 1)]
    assert len({order.tobytes() for order in orders}) == 4
    steps = [tuple(np.diff(w)) for w in orders[0].reshape(10, 40)]  # (10, 40)
    assert len(set(steps)) == 10  # each window has an order of its own
