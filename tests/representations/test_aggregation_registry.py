"""A user's aggregation, registered under a name, from the configuration to stored vectors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.representations.aggregate import Aggregate
from lfm4ads_tf.representations.aggregations.aggregation import Aggregation, Fold
from lfm4ads_tf.representations.aggregations.event_groups import EventGroups
from lfm4ads_tf.representations.aggregations.registry import AGGREGATIONS
from lfm4ads_tf.representations.config import RepresentationsConfig
from lfm4ads_tf.representations.names import Side, representation_names
from lfm4ads_tf.representations.side_states import SideEvents, SideStates
from lfm4ads_tf.strict import StrictModel, parse
from lfm4ads_tf.transfer.methods import parse_method
from tests.rounding import assert_close


class FirstOptions(StrictModel):
    count: int = Field(default=1, ge=1)


class First(Aggregation):
    """S = sum of a key's first events; the mark is the count of all of them."""

    Config: ClassVar[type[StrictModel]] = FirstOptions

    def __init__(self, count: int) -> None:
        self.count = count

    @classmethod
    def create(cls, config: RepresentationsConfig, options: Any, side: Side) -> Self:
        return cls(options.count + (side == "item"))

    def fold(self, mark: np.ndarray, events: EventGroups, time: np.ndarray) -> Fold:
        place = mark[events.index] + events.rank
        weight = (place < self.count).astype(np.float64)
        return Fold(weight, np.ones(len(mark)), mark + events.lengths)

    def join(self, mark: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, ...]:
        if self.count > 1:
            raise ValueError("the marks do not tell which events of the other are too late")
        return np.ones_like(mark), (mark == 0).astype(np.float64), mark + other


@pytest.fixture(autouse=True, scope="module")
def registered() -> Iterator[None]:
    with AGGREGATIONS.added("first", First):
        yield


def config_of(**raw: Any) -> RepresentationsConfig:
    return parse(RepresentationsConfig, raw, source="representations")


def events_of(seed: int, count: int) -> tuple[SideEvents, np.ndarray]:
    rng = np.random.default_rng(seed)
    time = np.sort(rng.random(count)) + seed
    events = SideEvents(rng.integers(0, 4, count), time, np.ones(count, np.int8))
    return events, rng.normal(size=(count, 3)).astype(np.float32)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 99), sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_what_is_stored_is_the_mean_of_the_first_events(seed: int, sizes: list[int]) -> None:
    config = config_of(
        aggregation="mean",
        aggregations=["first-raw"],
        aggregation_options={"first": {"count": 2}},
        layer_norm=False,
    )
    for side, most in (("user", 2), ("item", 3)):
        states = SideStates(side, pa.array(list("abcd")), config, ["towers"])
        seen: dict[int, list[np.ndarray]] = {}
        for k, size in enumerate(sizes):
            events, values = events_of(seed + k, size)
            states.begin(events)
            states.add(np.arange(size), {"towers": values})
            for key, value in zip(events.key.tolist(), values, strict=True):
                seen.setdefault(key, []).append(value)
        stored = {name: (keys, vectors) for name, keys, vectors in states.read(events)}
        keys, vectors = stored[f"CR_{side}@towers~first-raw"]
        expected = [np.mean(seen[key][:most], axis=0, dtype=np.float64) for key in keys.tolist()]
        assert_close(vectors, np.array(expected), terms=most)


def test_its_state_is_kept_and_restored(tmp_path: Path) -> None:
    config = config_of(aggregation="first", layer_norm=False)
    keys = pa.array(list("abcd"))
    both, part = (SideStates("user", keys, config, ["towers"]) for _ in range(2))
    for states in (both, part):
        events, values = events_of(0, 5)
        states.begin(events)
        states.add(np.arange(5), {"towers": values})
    part.save(tmp_path)
    assert (tmp_path / "user" / "all-first" / "mark.npy").exists()
    restored = SideStates("user", keys, config, ["towers"])
    restored.restore(tmp_path)
    events, values = events_of(1, 6)
    for states in (both, restored):
        states.begin(events)
        states.add(np.arange(6), {"towers": values})
    ours, theirs = (next(iter(states.read(events))) for states in (both, restored))
    np.testing.assert_array_equal(ours[2], theirs[2])


def test_states_of_consecutive_events_merge() -> None:
    whole, one, other = (Aggregate(First(1), 4) for _ in range(3))
    for k, state in enumerate((one, other)):
        events, values = events_of(k, 4)
        for target in (whole, state):
            target.update(events.key, {"x": values}, events.time)
    one.merge(other)
    np.testing.assert_array_equal(one.sums["x"], whole.sums["x"])
    np.testing.assert_array_equal(one.weight, whole.weight)


def test_methods_name_what_is_stored_of_it() -> None:
    names = representation_names(config_of(aggregations=["first"]), ["towers"])
    assert names[2:4] == ["CR_user@towers", "CR_user@towers~first"]
    method = parse_method("feature/mlp/CR_user@towers~first", [], representations=names)
    assert method.sources == ["CR_user@towers~first"]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"aggregation": "frst"}, "aggregation: the aggregation is unknown. Did you mean 'first'?"),
        ({"aggregations": ["frst-raw"]}, "each also with -raw. Did you mean 'first'?"),
        ({"aggregation_options": {"frst": {}}}, "unknown aggregation 'frst'. Did you mean 'first'"),
        ({"aggregation_options": {"first": {"cont": 1}}}, "Did you mean 'count'?"),
        ({"aggregation_options": {"mean": {"a": 1}}}, "'mean' has no options of its own"),
    ],
)
def test_unknown_names_are_refused(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        config_of(**raw)
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["a/b", "a+b", "a@b", "a~b", "mine-raw", "a b"])
def test_a_name_that_would_not_be_told_apart_is_refused(name: str) -> None:
    with AGGREGATIONS.added(name, First), pytest.raises(UserError, match="register it under"):
        config_of(aggregation=name)
