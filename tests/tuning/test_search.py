"""The search against made-up response surfaces."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm4ads_tf.tuning.cost import Cost
from lfm4ads_tf.tuning.search import Log, Search, Trial, first_batch_size
from lfm4ads_tf.tuning.settings import SCHEDULE, Settings

COST = Cost(columns=20, weights=20_000)
START = Settings(batch_size=1024, table_learning_rate=0.1, dense_learning_rate=1e-3)
NAMES = [f.name for f in fields(Settings)]
Surface = Callable[[Settings, str, float], Iterator[float]]


def log(rows: int = 80_000, periods: int = 8, auxiliary: int = 0, noise: float = 1e-3) -> Log:
    each = rows // periods
    return Log(each * periods, rows // 10, auxiliary, (each,) * periods, noise)


def peak(settings: Settings, kind: str, fraction: float) -> Iterator[float]:
    """Best at batch 256, table rate 0.2, dense rate 2e-3, dropout 0.2; a few passes are needed."""
    off = abs(np.log2(settings.batch_size / 256)) + abs(np.log2(settings.table_learning_rate / 0.2))
    off += abs(np.log2(settings.dense_learning_rate / 2e-3)) + 5 * abs(settings.dropout - 0.2)
    k = 0
    while True:
        passes = k + (settings.replay / 10 if kind == "chain" else 1)
        yield 0.8 - 0.01 * off - 0.1 * 0.5**passes - 0.004 * max(0.0, passes - 4)
        k += 1


def noise_surface(seed: int) -> Surface:
    """Values without any order, a function of seed and trial alone."""

    def run(settings: Settings, kind: str, fraction: float) -> Iterator[float]:
        draw = np.random.default_rng(zlib.crc32(repr((seed, settings, kind, fraction)).encode()))
        while True:
            yield float(draw.uniform(0.5, 0.9))

    return run


def search(surface: Surface, budget: float = 300.0, **over: Any) -> Search:
    given: dict[str, Any] = {"log": log(), "fixed": (), "chain": True, **over}
    return Search(cost=COST, budget=budget, start=START, run_trial=surface, **given)


def reached(settings: Settings) -> float:
    """The best value of a training with some settings."""
    run = peak(settings, "epochs", 1.0)
    return max(next(run) for _ in range(12))


def test_it_finds_a_better_setting() -> None:
    made = search(peak, budget=900.0)
    chosen = made.run()
    assert reached(chosen) > reached(START) + 0.03
    assert chosen.batch_size == 256 and chosen.final_passes > 0
    assert {t.kind for t in made.trials} == {"chain"}  # as the run will train
    assert made.kept and all(gained > 0 for _, gained in made.kept)


surfaces = st.builds(noise_surface, st.integers(0, 2**16)) | st.just(peak)
logs = st.builds(
    log,
    rows=st.integers(200, 3_000_000),
    periods=st.integers(1, 20),
    auxiliary=st.sampled_from([0, 1000, 2_000_000]),
    noise=st.floats(0, 0.02),
)


@given(surfaces, logs, st.floats(1, 2000), st.sets(st.sampled_from(NAMES)), st.booleans())
def test_the_ledger_stays_in_the_budget_and_fixed_settings_stay(
    surface: Surface, learnt: Log, budget: float, fixed: set[str], chain: bool
) -> None:
    made = search(surface, budget, log=learnt, fixed=fixed, chain=chain)
    chosen = made.run()
    costs = [t.cost for t in made.trials]
    assert len(costs) == 1 or sum(costs) <= budget * (1 + 1e-9)
    if budget >= made.smallest_budget():
        assert sum(costs) <= budget * (1 + 1e-9)
    for settings in (*(t.settings for t in made.trials), chosen):
        for name in fixed:
            assert getattr(settings, name) == getattr(START, name)
    if not chain:
        assert all(t.kind == "epochs" for t in made.trials)
        assert all(getattr(chosen, n) == getattr(START, n) for n in SCHEDULE)


@given(surfaces, logs, st.floats(30, 900), st.data())
def test_the_same_surface_gives_the_same_trials_also_after_a_kill(
    surface: Surface, learnt: Log, budget: float, data: st.DataObject
) -> None:
    whole = search(surface, budget, log=learnt)
    chosen = whole.run()
    again = search(surface, budget, log=learnt)
    assert again.run() == chosen and again.trials == whole.trials

    kept = data.draw(st.integers(0, len(whole.trials)))
    stored = json.loads(json.dumps([t.to_json() for t in whole.trials[:kept]]))
    calls = []

    def counted(settings: Settings, kind: str, fraction: float) -> Iterator[float]:
        calls.append(settings)
        return surface(settings, kind, fraction)

    resumed = search(counted, budget, log=learnt, made=[Trial.from_json(t) for t in stored])
    assert resumed.run() == chosen and resumed.trials == whole.trials
    assert calls == [t.settings for t in whole.trials[kept:]]


@pytest.mark.parametrize("after", [0, 1, 7])
def test_an_expired_clock_ends_it(after: int) -> None:
    points: list[float] = []

    def counted(settings: Settings, kind: str, fraction: float) -> Iterator[float]:
        for value in peak(settings, kind, fraction):
            points.append(value)
            yield value

    made = search(counted, expired=lambda: len(points) >= after)
    chosen = made.run()
    assert len(points) == max(1, after)
    assert made.trials and chosen.batch_size in [t.settings.batch_size for t in made.trials]


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([0.70, 0.75, 0.7504, 0.7501, 0.75], 1),
        ([0.70, 0.75, 0.77, 0.7704, 0.77], 2),
        ([0.75, 0.7504, 0.7509, 0.74, 0.74], 0),
    ],
)
def test_the_first_number_of_final_passes_within_the_noise(
    curve: list[float], expected: int
) -> None:
    def surface(settings: Settings, kind: str, fraction: float) -> Iterator[float]:
        # only the chain's curve rises, and a decaying rate loses
        lost = 0.0 if kind == "chain" and settings.final_decay == 1.0 else 0.5
        yield from (value - lost for value in curve)

    fixed = set(NAMES) - {"final_passes", "final_decay"}
    made = search(surface, fixed=fixed)
    assert made.run() == replace(START, final_passes=expected)


def test_given_final_passes_are_what_a_trial_of_the_chain_makes() -> None:
    """Also where the curve falls: trials are compared where the given passes end."""

    def falling(settings: Settings, kind: str, fraction: float) -> Iterator[float]:
        k = 0
        while True:
            yield 0.8 - 0.01 * k * (1 + settings.replay)
            k += 1

    made = search(falling, fixed=set(NAMES) - {"replay"})
    made.start = replace(START, final_passes=6, replay=5)
    chosen = made.run()
    assert len(made.trials) > 1 and all(len(t.values) == 7 for t in made.trials)
    assert (chosen.replay, chosen.final_passes) == (0, 6)


@given(logs, st.booleans())
def test_the_smallest_budget_has_room_for_a_trial(learnt: Log, chain: bool) -> None:
    least = search(peak, log=learnt, chain=chain).smallest_budget()
    made = search(peak, least, log=learnt, chain=chain)
    made.run()
    assert made.trials[0].cost <= least
    larger = search(peak, 4 * least, log=learnt, chain=chain)
    assert 0.01 <= made.fraction <= larger.fraction <= 1.0
    assert larger.noise <= made.noise  # more users, less noise


def test_rows_that_the_chain_walks() -> None:
    learnt = Log(rows=60, held=5, auxiliary=0, periods=(10, 20, 30), noise=0.0)
    assert learnt.walked(passes=1, replay=0) == 60
    assert learnt.walked(passes=2, replay=1) == 2 * (10 + 30 + 50)
    assert learnt.walked(passes=1, replay=9) == 10 + 30 + 60


@given(st.integers(0, 10**8))
def test_the_first_batch_size_is_a_power_of_two_that_grows_with_the_log(rows: int) -> None:
    size = first_batch_size(rows)
    assert 128 <= size <= 2048 and size & (size - 1) == 0
    assert size <= first_batch_size(2 * rows)
