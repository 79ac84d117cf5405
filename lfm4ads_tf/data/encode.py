"""Raw data -> encoded cache: fit, encode, statistics, sequences."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lfm4ads_tf.data.ahead import ahead_rows
from lfm4ads_tf.data.cache import Bag, CacheContent, write_cache
from lfm4ads_tf.data.codes import combine, factorize
from lfm4ads_tf.data.dropped import tell_dropped, tell_unlabelled, tell_unmatched
from lfm4ads_tf.data.events import event_sequences
from lfm4ads_tf.data.number_checks import check_numbers
from lfm4ads_tf.data.point_in_time import PointInTime
from lfm4ads_tf.data.raw import RawData
from lfm4ads_tf.data.samples import write_samples
from lfm4ads_tf.data.splits import AUXILIARY, SPLITS, TEST, TRAIN
from lfm4ads_tf.data.state import (
    NEWEST,
    placeholder_columns,
    statistic_key,
    write_sequence,
    write_statistic,
)
from lfm4ads_tf.data.statistics import StatisticEvents, frozen_totals, point_in_time
from lfm4ads_tf.data.vectors import vector_facts
from lfm4ads_tf.features import raw_values
from lfm4ads_tf.features.admission import NOT_TRAINING, admit, apply_admission
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.fitting import fit_encoding
from lfm4ads_tf.features.kinds import SequenceFeature, StatisticFeature
from lfm4ads_tf.features.name_checks import segment_name_error
from lfm4ads_tf.features.offline import encode_columns
from lfm4ads_tf.features.raw_types import raw_types
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.file_names import file_name

_LOG = logging.getLogger(__name__)

SAMPLE_ROWS = 256  # raw test rows kept per scenario for warm-up and golden requests


def encode_to(folder: Path, spec: FeatureSpec, raw: RawData, manifest: dict[str, Any]) -> None:
    """Encodes a data set into a folder.

    Beside the cache: `encoding/` (what was fitted), `state/` (moving features at the end of
    training, in `state/newest` after all rows), `tables/` (side tables, for new rows) and
    `samples.parquet` (raw test rows).

    Args:
        folder: An existing, empty folder.
        spec: The feature spec.
        raw: All rows.
        manifest: Further entries of the cache's manifest.
    """
    encoding = _Encoding(spec, raw)
    (folder / "state" / NEWEST).mkdir(parents=True)
    encoding.fitted.save(folder / "encoding")
    encoding.add_statistics(folder / "state")
    encoding.add_sequences(folder / "state")
    encoding.write(folder, manifest)


@dataclass
class _Moving:
    """Values of the moving columns, gathered feature by feature.

    Attributes:
        columns: Columns of `dense` that move.
        dense: Their daily values, (N,) each.
        bags: Moving bags, daily.
        ahead_columns, ahead_dense, ahead_bags: The same of users and items, as of the periods of
            the rows that stand for them, see `lfm4ads_tf.data.ahead`.
    """

    columns: list[int] = field(default_factory=list)
    dense: list[np.ndarray] = field(default_factory=list)
    bags: dict[str, Bag] = field(default_factory=dict)
    ahead_columns: list[int] = field(default_factory=list)
    ahead_dense: list[np.ndarray] = field(default_factory=list)
    ahead_bags: dict[str, Bag] = field(default_factory=dict)


class _Encoding:
    """The steps of `encode_to` over one data set."""

    def __init__(self, spec: FeatureSpec, raw: RawData) -> None:
        self.spec = spec
        self.raw = raw
        self.train = np.isin(raw.split, (TRAIN, AUXILIARY))
        train_rows = np.flatnonzero(self.train)
        first = raw.period[raw.split == TRAIN].min()
        self.fitted = fit_encoding(spec, raw.columns, train_rows, raw.period == first)
        self.ordinals = np.full(raw.rows, NOT_TRAINING, np.int64)
        self.ordinals[train_rows] = np.arange(len(train_rows))
        self.encoder = Encoder(spec, self.fitted)
        self.layout = self.encoder.layout
        self.request = placeholder_columns(spec, raw.rows)
        encoded = admit(
            encode_columns(self.encoder, {**raw.columns, **self.request}),
            self.layout,
            self.fitted.vocabularies,
            self.ordinals,
        )
        self.ids: np.ndarray = encoded["ids"]
        self.dense: np.ndarray = encoded["dense"]
        self.scenario: np.ndarray = encoded["scenario"]
        self.branch: np.ndarray = encoded["branch"]
        self.segments = self._segments()
        self.bags = {n: Bag(v, s, w) for n, (v, s, w) in encoded["bags"].items()}
        self.user, self.user_keys = factorize(raw.columns[spec.keys.user])
        self.item, self.item_keys = factorize(raw.columns[spec.keys.item])
        self.moving = _Moving()
        self.order = PointInTime(raw.period, raw.time, raw.split)
        self.ahead = ahead_rows(self.user, self.item, raw.period, raw.split)

    def _segments(self) -> np.ndarray:
        """Whether a row is in each segment, (N, S); auxiliary rows are in none."""
        raw, sets = self.raw, self.spec.segments
        in_segment = np.zeros((raw.rows, len(sets)), bool)
        for k, (name, row_set) in enumerate(sets.items()):
            if name in self.layout.scenarios:
                raise segment_name_error(name)
            in_segment[:, k] = row_set.rows(raw.columns[row_set.by]) & (raw.split != AUXILIARY)
            if not in_segment[:, k].any():
                _LOG.warning(
                    "the segment '%s' has no row: no '%s' is %s", name, row_set.by, row_set.values
                )
            else:
                tell_unmatched(f"segments.{name}.values", row_set, raw.columns[row_set.by])
        if self.spec.ads is not None:
            row_set = self.spec.ads
            if not self.branch.any():
                _LOG.warning("no row is an ad: no '%s' is %s", row_set.by, row_set.values)
            else:
                tell_unmatched("ads.values", row_set, raw.columns[row_set.by])
        return in_segment

    def _admitted(self, bag: Bag, table: str, rows: np.ndarray | None = None) -> Bag:
        """The lists of some rows, all when absent, as the vocabulary was at each row."""
        vocabulary = self.fitted.vocabularies.get(table)
        if vocabulary is None:
            return bag
        ordinals = self.ordinals if rows is None else self.ordinals[rows]
        ordinals = np.repeat(ordinals, np.diff(bag.splits))
        values = apply_admission(bag.values, ordinals, vocabulary.admitted_at)
        return Bag(values, bag.splits, bag.weights)

    def _feature_ids(self) -> dict[str, np.ndarray]:
        return {f.name: self.ids[:, k] for k, f in enumerate(self.layout.single)}

    def add_statistics(self, folder: Path) -> None:
        """Fills the statistics' dense columns and writes their state at the end of training."""
        start = 0
        ids = self._feature_ids()
        starts = {}
        for of in self.layout.dense:
            starts[of.name] = start
            start += of.width
        for name, feature in self.spec.features.items():
            if not isinstance(feature, StatisticFeature):
                continue
            texts = [statistic_key(self.spec, k, self.raw.columns, ids) for k in feature.keys]
            factorized = [factorize(t) for t in texts]
            key, parts = combine([codes for codes, _ in factorized])
            events = StatisticEvents(key, self._events_of(feature), self.raw.period, self.train)
            self.order.add(name, key, events.known)
            frozen, daily = point_in_time(self._with_ahead(events), feature.smoothing)
            frozen = frozen[: self.raw.rows]
            daily, later = np.split(daily, [self.raw.rows])  # (N, 2), (M, 2)
            columns = feature.raw_columns(name)
            order = ["count", "rate"]
            for k, column in enumerate(columns):
                which = order.index(column.rpartition(".")[2])
                position = starts[name] + k
                self.dense[:, position] = frozen[:, which]
                self.request[column] = frozen[:, which]
                self.moving.columns.append(position)
                self.moving.dense.append(daily[:, which])
                if feature.owner != "context":
                    self.moving.ahead_columns.append(position)
                    self.moving.ahead_dense.append(later[:, which])
            everything = replace(events, train=np.ones(self.raw.rows, bool))
            for place, counted in ((folder, events), (folder / NEWEST, everything)):
                keys, n, s, prior = frozen_totals(counted)
                key_texts = [
                    dictionary.take(pa.array(parts[keys, j]))
                    for j, (_, dictionary) in enumerate(factorized)
                ]
                write_statistic(place, name, key_texts, n, s, prior)

    def _with_ahead(self, events: StatisticEvents) -> StatisticEvents:
        """The events, and behind them the rows ahead, which are no events."""
        ahead = self.ahead
        return StatisticEvents(
            np.concatenate([events.key, events.key[ahead.row]]),
            np.concatenate([events.positive, np.full(len(ahead.row), np.nan)]),
            np.concatenate([events.period, ahead.period]),
            np.concatenate([events.train, ~ahead.daily]),
        )

    def _events_of(self, feature: StatisticFeature) -> np.ndarray:
        positive = self._feedback(feature.task).astype(np.float64)
        auxiliary = self.raw.split == AUXILIARY
        if feature.events == "log":
            positive[auxiliary] = np.nan
        elif feature.events == "auxiliary":
            positive[~auxiliary] = np.nan
        return positive

    def _feedback(self, name: str) -> np.ndarray:
        """Labels (N,) of a task or a signal."""
        column = list(self.spec.feedback).index(name)
        tasks = len(self.spec.tasks)
        raw = self.raw
        return raw.labels[:, column] if column < tasks else raw.signals[:, column - tasks]

    def add_sequences(self, folder: Path) -> None:
        """Fills the event sequences and writes their state at the end of training."""
        by_name = {f.name: f for f in self.layout.fields}
        for name, feature in self.spec.features.items():
            if not isinstance(feature, SequenceFeature) or feature.events_of is None:
                continue
            positive = self._feedback(feature.events_of) == 1
            self.order.add(name, self.user, positive, feature.max_length)
            ahead, rows = self.ahead, np.arange(self.raw.rows)
            lists = event_sequences(
                np.concatenate([self.user, self.user[ahead.row]]),
                np.concatenate([self.item, self.item[ahead.row]]),
                np.concatenate([positive, np.zeros(len(ahead.row), bool)]),
                np.concatenate([self.raw.period, ahead.period]),
                np.concatenate([self.train, ~ahead.daily]),
                feature.max_length,
            )
            frozen, daily = (of.take(rows) for of in lists)
            later = lists[1].take(self.raw.rows + np.arange(len(ahead.row)))
            item_ids = self._item_ids(by_name[name].table)
            bags = [
                self._admitted(Bag(item_ids[b.values], b.splits), by_name[name].table)
                for b in (frozen, daily)
            ]
            self.bags[name], self.moving.bags[name] = bags
            if feature.owner == "user":
                table = by_name[name].table
                self.moving.ahead_bags[name] = self._admitted(
                    Bag(item_ids[later.values], later.splits), table, self.ahead.row
                )
            items = self.item_keys.take(pa.array(frozen.values))
            self.request[name] = pa.LargeListArray.from_arrays(frozen.splits, items)
            # Any non-training row of a user holds the state at the end of training; a user
            # without one is read from a row of its own appended for the purpose.
            self._write_sequence_state(folder, name, feature, positive, self.train)
            everything = np.ones(self.raw.rows, bool)
            self._write_sequence_state(folder / NEWEST, name, feature, positive, everything)

    def _write_sequence_state(
        self,
        folder: Path,
        name: str,
        feature: SequenceFeature,
        positive: np.ndarray,
        train: np.ndarray,
    ) -> None:
        users = len(self.user_keys)
        ask = np.arange(users)
        state, _ = event_sequences(
            np.concatenate([self.user, ask]),
            np.concatenate([self.item, np.zeros(users, self.item.dtype)]),
            np.concatenate([positive, np.zeros(users, bool)]),
            np.concatenate([self.raw.period, np.full(users, self.raw.period.max() + 1)]),
            np.concatenate([train, np.zeros(users, bool)]),
            feature.max_length,
        )
        kept = state.take(np.arange(self.raw.rows, self.raw.rows + users))
        items = self.item_keys.take(pa.array(kept.values))
        lists = pa.ListArray.from_arrays(pa.array(kept.splits, pa.int32()), items)
        write_sequence(folder, name, self.user_keys, lists)

    def _item_ids(self, table: str) -> np.ndarray:
        """Id of every item key in a table, as the final vocabulary gives it, (items,)."""
        first = np.full(len(self.item_keys), -1, np.int64)
        first[self.item[::-1]] = np.arange(self.raw.rows)[::-1]
        encoded = encode_columns(
            self.encoder,
            {
                c: (v.take(pa.array(first)) if isinstance(v, pa.Array) else _first_rows(v, first))
                for c, v in {
                    **self.raw.columns,
                    **placeholder_columns(self.spec, self.raw.rows),
                }.items()
                if c in raw_types(self.spec)
            },
        )
        column = [f.name for f in self.layout.single].index(table)
        return np.asarray(encoded["ids"][:, column])

    def write(self, folder: Path, manifest: dict[str, Any]) -> None:
        """Writes the cache and the raw samples."""
        raw = self.raw
        content = CacheContent(
            layout=self.layout,
            columns={
                "ids": self.ids,
                "dense": self.dense,
                "labels": raw.labels,
                "scenario": self.scenario,
                "branch": self.branch,
                "segments": self.segments,
                "user": self.user.astype(np.int32),
                "item": self.item.astype(np.int32),
                "time": raw.time,
                "split": raw.split,
                "period": raw.period,
                "ahead_row": self.ahead.row,
                "ahead_period": self.ahead.period,
                "ahead_daily": self.ahead.daily,
                "ahead_dense": _stacked(self.moving.ahead_dense, len(self.ahead.row)),
            },
            bags=self.bags,
            moving_columns=self.moving.columns,
            moving_dense=np.stack(self.moving.dense, axis=1) if self.moving.dense else None,
            moving_bags=self.moving.bags,
            ahead_columns=self.moving.ahead_columns,
            ahead_bags=self.moving.ahead_bags,
            best_possible=raw.best_possible,
            keys={"user": self.user_keys, "item": self.item_keys},
            manifest={**manifest, **self._facts()},
        )
        self._write_samples(folder)
        (folder / "tables").mkdir()
        for name, table in raw.tables.items():
            pq.write_table(table, folder / "tables" / f"{file_name(name)}.parquet")
        write_cache(folder, content)

    def _facts(self) -> dict[str, Any]:
        """Counts, periods and the point-in-time flag of every scenario and segment."""
        raw = self.raw
        rows = {name: self.scenario == k for k, name in enumerate(self.layout.scenarios)}
        rows |= dict(zip(self.layout.segments, self.segments.T, strict=True))
        flags = self.order.flags(rows)
        self.order.warn(flags)
        parts = {name: np.flatnonzero(raw.split == code) for name, code in SPLITS.items()}
        past = {"auxiliary": np.flatnonzero(raw.split == AUXILIARY)}
        tell_dropped(self.spec, raw.columns, self.scenario, {**past, **parts})
        tell_unlabelled(raw.labels, parts)
        return {
            "rows": {name: int((raw.split == code).sum()) for name, code in SPLITS.items()},
            "auxiliary_rows": int((raw.split == AUXILIARY).sum()),
            "periods": raw.period_values,
            "unseen_scenarios": self._unseen_scenarios(),
            "point_in_time": flags,
            **vector_facts(self.spec),
            "beyond_bound": check_numbers(
                self.spec,
                self.fitted,
                raw.columns,
                self.layout,
                {"ids": self.ids, "dense": self.dense},
                parts,
            ),
        }

    def _unseen_scenarios(self) -> list[str]:
        """Scenarios that the log has, but no training row."""
        column, unknown = self.spec.keys.scenario, np.flatnonzero(self.scenario < 0)
        if column is None or not len(unknown):
            return []
        texts = raw_values.texts(raw_values.column_of(self.raw.columns, column))
        return sorted(set(pc.unique(texts.take(pa.array(unknown))).to_pylist()) - {""})

    def _write_samples(self, folder: Path) -> None:
        """Raw test rows of every scenario, with their cache row: requests for exports."""
        rows: list[int] = []
        for k in range(len(self.layout.scenarios)):
            chosen = np.flatnonzero((self.scenario == k) & (self.raw.split == TEST))
            rows += chosen[:SAMPLE_ROWS].tolist()
        index = pa.array(rows, pa.int64())
        columns: dict[str, Any] = {}
        for column in raw_types(self.spec):
            value = self.request.get(column, self.raw.columns.get(column))
            columns[column] = pa.array(value).take(index)
        for key in (self.spec.keys.user, self.spec.keys.item):
            columns[key] = pc.cast(self.raw.columns[key], pa.string()).take(index)
        write_samples(folder, index.to_numpy(), columns)


def _stacked(columns: list[np.ndarray], rows: int) -> np.ndarray:
    """Columns side by side, (rows, columns)."""
    return np.stack(columns, axis=1) if columns else np.zeros((rows, 0), np.float32)


def _first_rows(value: Any, rows: np.ndarray) -> Any:
    """Rows of a placeholder: zeros, or empty lists as (values, offsets)."""
    if isinstance(value, tuple):
        return value[0], np.zeros(len(rows) + 1, np.int64)
    return value[rows]
