"""One side's aggregates: which events feed which layer, portions, reading before each event."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.representations.aggregate import Aggregate
from lfm4ads_tf.representations.aggregations.last import Last
from lfm4ads_tf.representations.aggregations.mean import Mean
from lfm4ads_tf.representations.aggregations.time_decay import TimeDecay
from lfm4ads_tf.representations.config import RepresentationsConfig
from lfm4ads_tf.representations.side_states import SideEvents, SideStates
from tests.rounding import assert_close

pytestmark = pytest.mark.processor

LAYERS = ["towers", "content.fm", "ad.fm"]
KEYS = pa.array([f"k{k}" for k in range(6)])
COUNT = 50
CONFIG: dict[str, Any] = {"aggregations": ["mean-raw", "last", "count_decay"], "half_life": 5.0}


def a_period(seed: int) -> tuple[SideEvents, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    time = np.sort(rng.random(COUNT) * 20) + 20 * seed
    branch = rng.integers(0, 2, COUNT).astype(np.int8)
    values = {n: rng.normal(size=(COUNT, 3)).astype(np.float32) for n in LAYERS}
    return SideEvents(rng.integers(0, len(KEYS) - 1, COUNT), time, branch), values


def states(**over: Any) -> SideStates:
    return SideStates("user", KEYS, RepresentationsConfig(**{**CONFIG, **over}), LAYERS)


def add(side: SideStates, period: tuple[SideEvents, dict[str, np.ndarray]]) -> None:
    """In three portions of shuffled rows."""
    events, values = period
    side.begin(events)
    for places in np.array_split(np.random.default_rng(9).permutation(COUNT), 3):
        side.add(places, {n: v[places] for n, v in values.items()})


def found(side: SideStates, events: SideEvents) -> dict[str, tuple[list[int], np.ndarray]]:
    return {name: (codes.tolist(), vectors) for name, codes, vectors in side.read(events)}


@pytest.mark.parametrize("cr_events", ["branch", "all"])
def test_each_branch_takes_its_own_events(cr_events: str) -> None:
    side = states(cr_events=cr_events)
    periods = [a_period(0), a_period(1)]
    for period in periods:
        add(side, period)
    read = found(side, periods[1][0])
    assert len(read) == 3 * 4
    for layer, branch in (("towers", None), ("content.fm", 0), ("ad.fm", 1)):
        feeds = branch is None or cr_events == "all"
        oracle = {"": TimeDecay(5.0), "~mean-raw": Mean(), "~last": Last()}
        for ending, rule in oracle.items():
            expected = Aggregate(rule, len(KEYS))
            for events, values in periods:
                own = np.ones(COUNT, bool) if feeds else events.branch == branch
                expected.update(events.key[own], {"x": values[layer][own]}, events.time[own])
            codes, vectors = read[f"CR_user@{layer}{ending}"]
            last = periods[1][0]
            own = np.ones(COUNT, bool) if feeds else last.branch == branch
            assert codes == np.unique(last.key[own]).tolist()
            wanted = expected.read("x", np.array(codes), layer_norm=ending != "~mean-raw")
            assert_close(vectors, wanted, terms=100)


def test_scanning_reads_the_state_before_each_event() -> None:
    """Against states made anew from the events before each row."""
    first, (events, values) = a_period(0), a_period(1)
    side = states()
    add(side, first)
    read = {name: (vectors, known) for name, vectors, known in side.scan(events, values)}
    assert len(read) == 3 * 4
    for n in (0, 1, 7, 30, COUNT - 1):
        fresh = states()
        add(fresh, first)
        part = SideEvents(events.key[:n], events.time[:n], events.branch[:n])
        fresh.begin(part)
        fresh.add(np.arange(n), {name: v[:n] for name, v in values.items()})
        key = int(events.key[n])
        # A period that the key is in, so that it is read.
        before = found(fresh, SideEvents(np.array([key] * 2), np.zeros(2), np.array([0, 1])))
        for name, (vectors, known) in read.items():
            assert known[n]
            assert_close(vectors[n], before[name][1][0], terms=100, what=name)
    after = found(side, events)
    both = states()
    add(both, first)
    add(both, (events, values))
    for name, (codes, vectors) in found(both, events).items():
        assert after[name][0] == codes
        assert_close(after[name][1], vectors, terms=100, what=name)


def test_a_row_of_a_key_without_events_sees_nothing() -> None:
    events, values = a_period(0)
    seen: set[int] = set()
    fresh = np.array([not (k in seen or seen.add(k)) for k in events.key.tolist()])  # type: ignore[func-returns-value]
    for name, vectors, known in states().scan(events, values):
        if name == "CR_user@towers":
            assert np.array_equal(known, ~fresh)
        assert not vectors[~known].any() and known.any()


def test_stored_states_continue_under_other_codes(tmp_path: Path) -> None:
    """The new data knows more keys, in another order."""
    first, second = a_period(0), a_period(1)
    whole = states()
    add(whole, first)
    whole.save(tmp_path)
    add(whole, second)
    keys = pa.array(["new", *KEYS.to_pylist()[::-1]])
    code = np.array([keys.to_pylist().index(k) for k in KEYS.to_pylist()])
    later = SideStates("user", keys, RepresentationsConfig(**CONFIG), LAYERS)
    later.restore(tmp_path)
    events = SideEvents(code[second[0].key], second[0].time, second[0].branch)
    add(later, (events, second[1]))
    ours = found(later, events)
    for name, (codes, vectors) in found(whole, second[0]).items():
        place = {c: k for k, c in enumerate(ours[name][0])}
        other = ours[name][1][[place[int(code[c])] for c in codes]]
        assert_close(other, vectors, terms=100, what=name)


def test_states_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    side = states()
    add(side, a_period(0))
    side.save(tmp_path)
    fewer = SideStates("user", KEYS[:3], RepresentationsConfig(**CONFIG), LAYERS)
    with pytest.raises(UserError, match="lacks user keys"):
        fewer.restore(tmp_path)
    other = SideStates("user", KEYS, RepresentationsConfig(aggregation="count_decay"), LAYERS)
    other.restore(tmp_path)
    missing = SideStates("user", KEYS, RepresentationsConfig(**CONFIG, cr_events="all"), ["ad.fm"])
    with pytest.raises(UserError, match="holds no state"):
        missing.restore(tmp_path)
