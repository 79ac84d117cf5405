"""All aggregates of one side, updated batch by batch and kept on disk between versions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lfm4ads_tf.batch import BRANCHES
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.files import write_json
from lfm4ads_tf.registry_key import options_of
from lfm4ads_tf.representations.aggregate import Aggregate
from lfm4ads_tf.representations.aggregations.event_groups import EventGroups
from lfm4ads_tf.representations.aggregations.registry import AGGREGATIONS
from lfm4ads_tf.representations.config import OPTIONS_KEY, RepresentationsConfig
from lfm4ads_tf.representations.key_sums import KeySums
from lfm4ads_tf.representations.names import Side, cross_name

_ALL = "all"


@dataclass(frozen=True)
class SideEvents:
    """Events of one side in one period.

    Attributes:
        key: Code of each event's key, (N,).
        time: In hours, (N,) float64.
        branch: 0 content, 1 ad, (N,).
    """

    key: np.ndarray
    time: np.ndarray
    branch: np.ndarray


@dataclass(frozen=True)
class _Entry:
    """One aggregate.

    Attributes:
        name: Folder of its state.
        aggregate: The state.
        feed: The events that it takes: `content`, `ad` or `all`.
        layers: Layers whose vectors it sums.
        reads: What is stored of it: representation, layer, layer normalisation.
    """

    name: str
    aggregate: Aggregate
    feed: str
    layers: Sequence[str]
    reads: Sequence[tuple[str, str, bool]]


class _Fed:
    """The events of a period that are of one feed.

    Attributes:
        rows: Their places in the period, ascending (N',).
        groups: The events by key.
    """

    def __init__(self, fed: np.ndarray, key: np.ndarray) -> None:
        self.rows = np.flatnonzero(fed)
        self.groups = EventGroups(key[self.rows])


class SideStates:
    """The aggregates of one side: every layer's CR.

    A period is `begin`, `add` for each batch of its rows in order, then `read`; or `scan` for
    each batch, then `read`.

    Args:
        side: `user` or `item`.
        keys: Raw keys by code (K,).
        config: Aggregations and what feeds them.
        layers: Layers that are aggregated.
    """

    def __init__(
        self, side: Side, keys: pa.Array, config: RepresentationsConfig, layers: Sequence[str]
    ) -> None:
        self.side = side
        self.keys = keys
        self._entries: list[_Entry] = []
        variants = config.variants()
        for feed in (_ALL, *BRANCHES):
            fed_layers = [n for n in layers if feed_of(n, config) == feed]
            for kind in dict.fromkeys(kind for _, kind, _ in variants if fed_layers):
                reads = [
                    (cross_name(side, layer) + ending, layer, norm)
                    for layer in fed_layers
                    for ending, other, norm in variants
                    if other == kind
                ]
                options = options_of(AGGREGATIONS, kind, config.aggregation_options, OPTIONS_KEY)
                rule = AGGREGATIONS[kind].create(config, options, side)
                aggregate = Aggregate(rule, len(keys))
                self._entries.append(_Entry(f"{feed}-{kind}", aggregate, feed, fed_layers, reads))
        self._events: SideEvents | None = None
        self._feeds: dict[str, _Fed] = {}
        self._weights: list[np.ndarray] = []  # of the period's events, per aggregate

    def begin(self, events: SideEvents) -> None:
        """Makes the aggregates ready for a period's events."""
        feeds = self._by_feed(events)
        self._weights = []
        for entry in self._entries:
            fed = feeds[entry.feed]
            weight = np.zeros(len(events.key))
            weight[fed.rows] = entry.aggregate.begin(fed.groups, events.time[fed.rows]).weight
            self._weights.append(weight)

    def add(self, places: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        """Adds the activations of some rows of the period.

        Args:
            places: Their places in the period, in any order (B,).
            values: Layer -> (B, d) float32; layers that none of the rows feed may be left out.
        """
        if self._events is None:
            raise RuntimeError("`add` follows `begin`")
        key = self._events.key[places]
        for entry, weight in zip(self._entries, self._weights, strict=True):
            summed = KeySums(key, weight[places])
            if len(summed.keys):
                for layer in entry.layers:
                    entry.aggregate.add(layer, summed, values[layer])

    def scan(
        self, events: SideEvents, values: Mapping[str, np.ndarray]
    ) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Adds events one after the other, each key's state being read just before its event.

        Args:
            events: In time order.
            values: As for `add`, (N, d) each.

        Yields:
            Per representation its name, the vectors (N, d) and whether there was a state (N,).
        """
        groups = EventGroups(events.key)
        rounds = np.argsort(groups.rank, kind="stable")
        turns = np.split(rounds, np.cumsum(np.bincount(groups.rank))[:-1])
        for entry in self._entries:
            aggregate, fed = entry.aggregate, _fed(entry.feed, events.branch)
            time = events.time
            before = {name: np.zeros_like(values[layer]) for name, layer, _ in entry.reads}
            known = np.zeros(len(events.key), bool)
            for turn in turns:  # no key occurs twice in it
                seen = turn[aggregate.weight[events.key[turn]] > 0]
                known[seen] = True
                if len(seen):
                    for name, layer, norm in entry.reads:
                        state = aggregate.read(layer, events.key[seen], layer_norm=norm)
                        before[name][seen] = state
                new = turn[fed[turn]]
                taken = {layer: values[layer][new] for layer in entry.layers}
                aggregate.update(events.key[new], taken, time[new])
            for name, vectors in before.items():
                yield name, vectors, known

    def read(self, events: SideEvents) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """The aggregates of the keys with events in a period, as they are now.

        Yields:
            Per representation its name, the codes of its keys (K',) and the vectors (K', d).
        """
        fed = self._by_feed(events)
        for entry in self._entries:
            keys = fed[entry.feed].groups.keys
            for name, layer, norm in entry.reads:
                if layer in entry.aggregate.sums:
                    yield name, keys, entry.aggregate.read(layer, keys, layer_norm=norm)

    def save(self, folder: Path) -> None:
        """Writes all states into `folder/<side>`."""
        side_folder = folder / self.side
        side_folder.mkdir(parents=True)
        pq.write_table(pa.table({"key": self.keys}), side_folder / "keys.parquet")
        write_json(side_folder / "layers.json", {e.name: list(e.layers) for e in self._entries})
        for entry in self._entries:
            place = side_folder / entry.name
            place.mkdir()
            np.save(place / "weight.npy", entry.aggregate.weight)
            np.save(place / "mark.npy", entry.aggregate.mark)
            for layer, values in entry.aggregate.sums.items():
                np.save(place / f"sum@{layer}.npy", values)

    def restore(self, folder: Path) -> None:
        """Takes the states that `save` wrote; keys that are new begin empty.

        Raises:
            UserError: An aggregate, a layer or a key of the states is not there.
        """
        side_folder = folder / self.side
        stored = pq.read_table(side_folder / "keys.parquet")["key"].combine_chunks()
        place = pc.fill_null(pc.index_in(self.keys, value_set=stored), -1)
        place = place.to_numpy(zero_copy_only=False)
        known = place >= 0
        if known.sum() < len(stored):
            raise UserError(
                f"The data lacks {self.side} keys of the stored states.",
                received=f"{len(stored)} stored keys, {int(known.sum())} of them in the data",
                fix="continue with data whose keys include those of the earlier version",
            )
        layers = json.loads((side_folder / "layers.json").read_text("utf-8"))
        for entry in self._entries:
            source, aggregate = side_folder / entry.name, entry.aggregate
            missing = set(entry.layers) - set(layers.get(entry.name, []))
            if missing:
                raise UserError(
                    f"The earlier version holds no state '{entry.name}' of the layer "
                    f"'{min(missing)}'.",
                    received=str(side_folder),
                    fix="keep the aggregations and layers of that version, or extract anew",
                )
            aggregate.weight[known] = np.load(source / "weight.npy")[place[known]]
            aggregate.mark[known] = np.load(source / "mark.npy")[place[known]]
            for layer in entry.layers:
                path = source / f"sum@{layer}.npy"
                if path.exists():  # else no event has fed it
                    values = np.load(path, mmap_mode="r")
                    sums = np.zeros((len(self.keys), values.shape[1]), np.float32)
                    sums[known] = values[place[known]]
                    aggregate.sums[layer] = sums

    def _by_feed(self, events: SideEvents) -> dict[str, _Fed]:
        if self._events is not events:
            feeds = dict.fromkeys(entry.feed for entry in self._entries)
            self._feeds = {feed: _Fed(_fed(feed, events.branch), events.key) for feed in feeds}
            self._events = events
        return self._feeds


def feed_of(layer: str, config: RepresentationsConfig) -> str:
    """Which events feed a layer: `content`, `ad`, or `all`."""
    branch = layer.partition(".")[0] if "." in layer else _ALL
    return branch if branch in BRANCHES and config.cr_events == "branch" else _ALL


def _fed(feed: str, branch: np.ndarray) -> np.ndarray:
    """Which events are of a feed, (N,) bool."""
    return np.ones(len(branch), bool) if feed == _ALL else branch == BRANCHES.index(feed)
