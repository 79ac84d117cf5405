"""Scores events with an upstream and adds their activations to the aggregates."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from lfm4ads_tf.batch import BRANCHES
from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.data.input import apply, batches
from lfm4ads_tf.data.splits import TEST, VALID
from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.models.upstream import UpstreamModel
from lfm4ads_tf.representations.aggregations.event_groups import by_key
from lfm4ads_tf.representations.config import RepresentationsConfig
from lfm4ads_tf.representations.part import PartState
from lfm4ads_tf.representations.side_states import SideEvents, SideStates, feed_of
from lfm4ads_tf.representations.writer import RepresentationWriter

_BATCH = 4096
_TOWER_BATCH = 1024  # rows of a batch of `write_towers`, the last one filled up
_SECONDS_PER_HOUR = 3600.0
_AHEAD = 6  # pieces of work that may wait: bounds the activations held at a time


class Extraction:
    """States carried from period to period.

    Each side has a thread of its own, which adds and writes while the upstream scores the next
    batch. What a side does is done in one order, so that repeated runs give the same bits.

    Args:
        model: The upstream.
        cache: The encoded cache.
        config: Mode, aggregations, layers.
        writer: Where the parts go.

    Raises:
        UserError: A configured layer does not exist.
    """

    def __init__(
        self,
        model: UpstreamModel,
        cache: EncodedCache,
        config: RepresentationsConfig,
        writer: RepresentationWriter,
    ) -> None:
        self.cache = cache
        self.config = config
        self.layers = chosen_layers(model.layer_names, config)
        self._model = model
        self._writer = writer
        self._sides = {
            "user": SideStates("user", cache.keys("user"), config, self.layers),
            "item": SideStates("item", cache.keys("item"), config, self.layers),
        }
        self._workers = {side: ThreadPoolExecutor(1, f"extract-{side}") for side in self._sides}
        self._waiting: deque[Future[None]] = deque()

    def advance(
        self, rows: np.ndarray, period: int, state: PartState, *, by_row: bool = True
    ) -> None:
        """Adds a period's events and writes the CR of the keys they touch.

        Args:
            rows: Rows in time order.
            period: Their period.
            state: See `Part`.
            by_row: In the mode `event`: whether the rows get what they see.
        """
        scanned = self.config.mode == "event" and by_row
        events = {side: self._events(side, rows) for side in self._sides}
        order = np.arange(len(rows))
        if not scanned:
            for side, states in self._sides.items():
                self._submit(side, states.begin, events[side])
            # With a user's events side by side, few keys are touched by a batch.
            order = by_key(events["user"].key)
        for chosen, layers in self._portions(events["user"].branch, order, scanned):
            start = 0
            for values in self._activations(rows[chosen], layers):
                places = chosen[start : start + _BATCH]
                for side, states in self._sides.items():
                    if scanned:
                        self._submit(side, self._scan, states, events[side], rows, places, values)
                    else:
                        self._submit(side, states.add, places, values)
                start += len(places)
        where = self._where(period, state)
        for side, states in self._sides.items():
            self._submit(side, self._write, states, events[side], where)

    def write_towers(self, period: int, state: PartState) -> None:
        """Writes UR and IR of the keys with an event in a period, as of the next period.

        After the last training period, those of all other keys too.

        Args:
            period: The period; the model has the weights that are valid from the next one.
            state: See `Part`.
        """
        cache, trained = self.cache, state == "train"
        wanted = max(period + 1, cache.first_period) if trained else period + 1
        places = cache.ahead(wanted, daily=not trained)
        # On some processors the last bit of a product depends on the number of rows, and so a
        # vector would on how many keys there are: all batches are of one size.
        filled = np.resize(places, -(-len(places) // _TOWER_BATCH) * _TOWER_BATCH)
        data = batches(cache, filled, _TOWER_BATCH, ahead=True)
        outputs = [(u.numpy(), i.numpy()) for u, i in apply(_towers, data, self._model)]
        where = self._where(period, state)
        active = cache.period[cache.ahead_row[places]] == period
        for k, (side, name) in enumerate((("user", "UR"), ("item", "IR"))):
            codes = (cache.user if side == "user" else cache.item)[cache.ahead_row[places]]
            keys, reverse = np.unique(codes[::-1], return_index=True)
            last = len(codes) - 1 - reverse  # places are in the rows' order
            vectors = np.concatenate([pair[k] for pair in outputs])[last]  # last < len(places)
            of_period = active[last]
            for chosen, kind in ((of_period, state), (~of_period, "refresh")):
                if chosen.any():
                    raw = self._sides[side].keys.take(pa.array(keys[chosen]))
                    add = partial(self._writer.add, valid_from=period + 1, period=where["period"])
                    self._submit(side, partial(add, state=kind), name, raw, vectors[chosen])

    def _portions(
        self, branch: np.ndarray, order: np.ndarray, scanned: bool
    ) -> Iterator[tuple[np.ndarray, tuple[str, ...]]]:
        """Places of a period in the order of scoring, and the layers that are needed of them.

        Where branches feed layers of their own, a row passes through its own branch alone.
        """
        feeds = {layer: feed_of(layer, self.config) for layer in self.layers}
        if scanned or not set(BRANCHES) & set(feeds.values()):
            yield order, tuple(self.layers)
            return
        for index, name in enumerate(BRANCHES):
            chosen = order[branch[order] == index]
            layers = tuple(n for n, feed in feeds.items() if feed not in BRANCHES or feed == name)
            if len(chosen) and layers:
                yield chosen, layers

    def _activations(
        self, rows: np.ndarray, layers: tuple[str, ...]
    ) -> Iterator[dict[str, np.ndarray]]:
        """Layer -> (B, d) float32 of each batch."""
        # On other rows both states are the same, and the frozen one is read faster.
        held_out = np.isin(self.cache.split[rows], (VALID, TEST)).any()
        data = batches(self.cache, rows, _BATCH, refresh="daily" if held_out else "frozen")
        for out in apply(_of_layers(layers), data, self._model):
            yield {name: value.numpy() for name, value in out.items()}

    def _where(self, period: int, state: PartState) -> dict[str, Any]:
        periods = self.cache.manifest["periods"]
        label = periods[period + 1] if period + 1 < len(periods) else "end"
        return {"valid_from": period + 1, "period": label, "state": state}

    def save(self, folder: Path) -> None:
        """Writes the states, see `SideStates.save`."""
        for side, states in self._sides.items():
            self._submit(side, states.save, folder)

    def restore(self, folder: Path) -> None:
        """Takes the states that `save` wrote.

        Raises:
            UserError: They are not there, or do not fit the data or the configuration.
        """
        if not folder.exists():
            raise UserError(
                "The version of the representations holds no states.",
                received=str(folder),
                fix="extract it anew",
            )
        for side, states in self._sides.items():
            self._submit(side, states.restore, folder)
        self._wait(0)

    def __enter__(self) -> Extraction:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Waits for what is left to do; after an error it is dropped."""
        try:
            if error is None:
                self._wait(0)
        finally:
            for worker in self._workers.values():
                worker.shutdown(cancel_futures=True)

    def _submit(self, side: str, work: Callable[..., None], *arguments: Any) -> None:
        self._waiting.append(self._workers[side].submit(work, *arguments))
        self._wait(_AHEAD)

    def _wait(self, most: int) -> None:
        """Waits until no more than some pieces of work are left."""
        while len(self._waiting) > most:
            self._waiting.popleft().result()

    def _events(self, side: str, rows: np.ndarray) -> SideEvents:
        codes = self.cache.user if side == "user" else self.cache.item
        return SideEvents(
            codes[rows], self.cache.time[rows] / _SECONDS_PER_HOUR, self.cache.branch[rows]
        )

    def _scan(
        self,
        states: SideStates,
        events: SideEvents,
        rows: np.ndarray,
        places: np.ndarray,
        values: Mapping[str, np.ndarray],
    ) -> None:
        chosen_events = SideEvents(events.key[places], events.time[places], events.branch[places])
        for name, vectors, known in states.scan(chosen_events, values):
            self._writer.add_rows(name, rows[places], vectors, known, self.cache.rows)

    def _write(self, states: SideStates, events: SideEvents, where: Mapping[str, Any]) -> None:
        raw: dict[int, pa.Array] = {}  # by identity: layers of one feed share their codes
        for name, codes, vectors in states.read(events):
            if id(codes) not in raw:
                raw[id(codes)] = states.keys.take(pa.array(codes))
            self._writer.add(name, raw[id(codes)], vectors, **where)


def chosen_layers(names: list[str], config: RepresentationsConfig) -> list[str]:
    """The layers whose CR is stored, in the upstream's order.

    Raises:
        UserError: A configured layer does not exist.
    """
    for layer in config.layers or []:
        if layer not in names:
            raise UserError(
                f"representations.layers names the unknown layer '{layer}'.{nearest(layer, names)}",
                fix=f"use some of {', '.join(names)}",
            )
    return names if config.layers is None else [n for n in names if n in config.layers]


@lru_cache
def _of_layers(layers: tuple[str, ...]) -> Callable[[UpstreamModel, Any], dict[str, tf.Tensor]]:
    """The function that gives some layers; one object per choice, so that it is traced once."""

    def represent(model: UpstreamModel, batch: Any) -> dict[str, tf.Tensor]:
        representations = model.represent(batch)
        # TensorFlow leaves out what these do not depend on.
        return {name: representations[name] for name in layers}

    return represent


def _towers(model: UpstreamModel, batch: Any) -> tuple[tf.Tensor, tf.Tensor]:
    towers = model.backbone.towers(batch)
    return towers.user, towers.item
