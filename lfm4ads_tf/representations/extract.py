"""Extraction of UR, IR and CR from upstream snapshots, period by period."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.data.input import apply, batches
from lfm4ads_tf.data.splits import AUXILIARY, TEST, TRAIN, VALID
from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.models.upstream import Upstream
from lfm4ads_tf.progress import Progress
from lfm4ads_tf.representations.aggregate import DecayedSum
from lfm4ads_tf.representations.config import RepresentationsConfig
from lfm4ads_tf.representations.store import RepresentationWriter, State

_BATCH = 8192
_SECONDS_PER_HOUR = 3600.0


@dataclass
class _States:
    """Aggregates per user and per item, by layer."""

    user: dict[str, DecayedSum] = field(default_factory=dict)
    item: dict[str, DecayedSum] = field(default_factory=dict)


def extract(
    model: Upstream,
    load_snapshot: Callable[[int | None], None],
    cache: EncodedCache,
    config: RepresentationsConfig,
    writer: RepresentationWriter,
    *,
    auxiliary: bool = True,
    quiet: bool = False,
) -> None:
    """Writes every representation of every period.

    After period e, with weights that have seen no later row: UR and IR are the towers' outputs at
    the key's last event of e; CR is the time-decayed mean over all events up to e, each event's
    activation taken with the weights of the end of its own period. Both are valid from e + 1.
    Valid and test rows follow under the state `daily`, with the weights of the end of training.

    Args:
        model: The upstream; its weights are replaced.
        load_snapshot: Loads the weights valid from a period, None for those at the end of
            training.
        cache: The encoded cache.
        config: Mode, snapshots, decay, layers.
        writer: Where the parts go.
        auxiliary: Whether the upstream was trained on the auxiliary rows, so that they are events.
        quiet: Whether to hide the progress bar.

    Raises:
        UserError: A configured layer does not exist.
    """
    layers = _layers(model, config)
    extraction = _Extraction(model, cache, config, layers, writer)
    trained = np.isin(cache.split, (TRAIN, AUXILIARY) if auxiliary else (TRAIN,))
    train_periods = np.unique(cache.period[trained]).tolist()
    later = np.isin(cache.split, (VALID, TEST))
    held_out = np.unique(cache.period[later]).tolist()
    with Progress("extract", len(train_periods) + len(held_out), quiet=quiet) as progress:
        for period in train_periods:
            daily = config.snapshots == "daily" and config.mode == "daily"
            load_snapshot(period + 1 if daily else None)
            extraction.advance(np.flatnonzero(trained & (cache.period == period)), period, "train")
            progress.advance(1)
        load_snapshot(None)
        for period in held_out:
            extraction.advance(np.flatnonzero(later & (cache.period == period)), period, "daily")
            progress.advance(1)


class _Extraction:
    """State carried from period to period."""

    def __init__(
        self,
        model: Upstream,
        cache: EncodedCache,
        config: RepresentationsConfig,
        layers: list[str],
        writer: RepresentationWriter,
    ) -> None:
        self.cache = cache
        self.config = config
        self.layers = layers
        self.writer = writer
        self.keys = {"user": cache.keys("user"), "item": cache.keys("item")}
        self.states = _States()
        self._model = model

    def advance(self, rows: np.ndarray, period: int, state: State) -> None:
        """Adds a period's events and writes the keys they touch."""
        values = self._activations(rows)
        periods = self.cache.manifest["periods"]
        label = periods[period + 1] if period + 1 < len(periods) else "end"
        hours = self.cache.time[rows] / _SECONDS_PER_HOUR
        for side, tower, states in (
            ("user", "UR", self.states.user),
            ("item", "IR", self.states.item),
        ):
            codes = (self.cache.user if side == "user" else self.cache.item)[rows]
            touched = np.unique(codes)
            last = np.zeros(len(self.keys[side]), np.int64)
            last[codes] = np.arange(len(rows))  # rows are in time order: the last one stays
            keys = self.keys[side].take(pa.array(touched))
            where: dict[str, Any] = {"valid_from": period + 1, "period": label, "state": state}
            self.writer.add(tower, keys, values[tower][last[touched]], **where)
            for layer in self.layers:
                if layer not in states:
                    dim = values[layer].shape[1]
                    states[layer] = DecayedSum(len(last), dim, self.config.half_life)
                states[layer].update(codes, values[layer], hours)
                stored = states[layer].read(touched, layer_norm=self.config.layer_norm)
                self.writer.add(f"CR_{side}@{layer}", keys, stored, **where)

    def _activations(self, rows: np.ndarray) -> Mapping[str, np.ndarray]:
        """Sample-level UR, IR and CR of some rows."""
        wanted = ["UR", "IR", *self.layers]
        chunks: dict[str, list[np.ndarray]] = {name: [] for name in wanted}
        data = batches(self.cache, rows, _BATCH, refresh="daily")
        for out in apply(type(self._model).represent, data, self._model):
            for name in wanted:
                chunks[name].append(out[name].numpy())
        return {name: np.concatenate(parts) for name, parts in chunks.items()}


def _layers(model: Upstream, config: RepresentationsConfig) -> list[str]:
    names = model.layer_names
    for layer in config.layers or []:
        if layer not in names:
            raise UserError(
                f"representations.layers names the unknown layer '{layer}'.{nearest(layer, names)}",
                fix=f"use some of {', '.join(names)}",
            )
    return names if config.layers is None else [n for n in names if n in config.layers]
