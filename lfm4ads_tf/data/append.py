"""An encoded cache continued with new rows; no earlier raw row is read."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lfm4ads_tf.data.cache import AHEAD, Bag, CacheContent, EncodedCache, write_cache
from lfm4ads_tf.data.dropped import tell_dropped, tell_unlabelled
from lfm4ads_tf.data.new_rows import NewRows
from lfm4ads_tf.data.number_checks import check_numbers
from lfm4ads_tf.data.point_in_time import PointInTime
from lfm4ads_tf.data.splits import AUXILIARY, SPLITS, TEST, TRAIN, VALID
from lfm4ads_tf.data.state import NEWEST, FrozenState, request_columns
from lfm4ads_tf.data.state_update import advance_state
from lfm4ads_tf.data.vectors import vector_facts
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.admission import admit
from lfm4ads_tf.features.encoder import Encoder
from lfm4ads_tf.features.fitted_encoding import FittedEncoding
from lfm4ads_tf.features.growth import grow_encoding, load_waiting, save_waiting
from lfm4ads_tf.features.offline import encode_columns
from lfm4ads_tf.features.spec import FeatureSpec
from lfm4ads_tf.file_names import file_name


def append_to(
    folder: Path, spec: FeatureSpec, earlier: EncodedCache, new: NewRows, manifest: dict[str, Any]
) -> None:
    """Writes a cache of the earlier rows and, behind them, the new ones.

    What was tested validates now, what validated trains now, and the new rows are the test. The
    moving features of every row are as of its own period: there is no `frozen` state apart from
    the `daily` one. `state/` is that after all rows.

    Args:
        folder: An existing, empty folder.
        spec: The feature spec.
        earlier: What `encode_to` or an earlier call wrote.
        new: Rows of later periods.
        manifest: Further entries of the cache's manifest.

    Raises:
        UserError: The earlier data hold no state after all rows.
    """
    _Appended(folder, spec, earlier, new).write(manifest)


class _Appended:
    """The steps of `append_to`."""

    def __init__(
        self, folder: Path, spec: FeatureSpec, earlier: EncodedCache, new: NewRows
    ) -> None:
        self.folder, self.spec, self.earlier, self.new = folder, spec, earlier, new
        self.rows = len(new.time)
        self.base = earlier.rows
        _copy_state(earlier.folder, folder / "state")
        encoding = earlier.folder / "encoding"
        self.fitted, self.waiting = grow_encoding(
            spec,
            FittedEncoding.load(encoding),
            new.columns,
            self.rows,
            base=self.base,
            waiting=load_waiting(encoding),
        )
        self.encoder = Encoder(spec, self.fitted)
        self.layout = self.encoder.layout
        self.user, self.user_keys = _codes(earlier.keys("user"), new.columns[spec.keys.user])
        self.item, self.item_keys = _codes(earlier.keys("item"), new.columns[spec.keys.item])
        self.encoded: list[dict[str, Any]] = []
        self.ahead: list[tuple[np.ndarray, dict[str, Any]]] = []
        for period in np.unique(new.period).tolist():
            self._add(period)
            if (self.encoded[-1]["scenario"] < 0).all():
                raise UserError(
                    "No new row of a period is of a scenario that the model knows.",
                    received=f"period {new.period_values[period - int(new.period[0])]}",
                    fix=f"give rows of {', '.join(self.layout.scenarios)}, or train a run anew",
                )

    def _add(self, period: int) -> None:
        """Encodes a period as of its beginning, adds its events, and its keys as of its end."""
        rows = np.flatnonzero(self.new.period == period)
        self.encoded.append(self._encode(rows))
        columns = {c: a.take(pa.array(rows)) for c, a in self.new.columns.items()}
        feedback = self.new.feedback[rows]
        advance_state(self.folder / "state", self.spec, columns, feedback, self.encoder)
        last = [rows[_last(codes[rows])] for codes in (self.user, self.item)]
        ahead = np.unique(np.concatenate(last))
        self.ahead.append((ahead, self._encode(ahead)))

    def _encode(self, rows: np.ndarray) -> dict[str, Any]:
        """New rows with the moving features of the state as it is now."""
        columns = {c: a.take(pa.array(rows)) for c, a in self.new.columns.items()}
        state = FrozenState(self.folder / "state")
        request = request_columns(self.spec, state, columns, self.encoder)
        return admit(
            encode_columns(self.encoder, {**columns, **request}),
            self.layout,
            self.fitted.vocabularies,
            self.base + rows,
        )

    def write(self, manifest: dict[str, Any]) -> None:
        """Writes the cache and what lies beside it."""
        old, new = self.earlier, self.new
        split = np.asarray(old.split).copy()
        split[old.split == VALID] = TRAIN
        split[old.split == TEST] = VALID
        split = np.concatenate([split, np.full(self.rows, TEST, np.int8)])
        labels = new.feedback[:, : len(self.spec.tasks)]
        columns = {
            "ids": self._both(old.column("ids"), "ids"),
            "dense": self._both(_daily_numbers(old), "dense"),
            "labels": np.concatenate([old.labels, labels]),
            "scenario": self._both(old.scenario, "scenario"),
            "branch": self._both(old.branch, "branch"),
            "segments": np.concatenate([old.segments, self._segments()]),
            "user": np.concatenate([old.user, self.user.astype(np.int32)]),
            "item": np.concatenate([old.item, self.item.astype(np.int32)]),
            "time": np.concatenate([old.time, new.time]),
            "split": split,
            "period": np.concatenate([old.period, new.period]),
        }
        bags = {f.name: _joined(self._bags(f.name)) for f in self.layout.bags}
        ahead, ahead_bags = self._ahead()
        best = new.best_possible
        if old.best_possible is not None and best is not None:
            best = np.concatenate([old.best_possible, best])
        content = CacheContent(
            layout=self.layout,
            columns={**columns, **ahead},
            bags=bags,
            moving_columns=[],
            moving_dense=None,
            moving_bags={},
            ahead_columns=old.manifest["ahead_columns"],
            ahead_bags=ahead_bags,
            best_possible=best,
            keys={"user": self.user_keys, "item": self.item_keys},
            manifest={**self._facts(columns), **manifest},
        )
        encoded = {k: np.concatenate([p[k] for p in self.encoded]) for k in ("ids", "dense")}
        every = {"new": np.arange(self.rows)}
        check_numbers(self.spec, self.fitted, new.columns, self.layout, encoded, every)
        scenario = np.concatenate([part["scenario"] for part in self.encoded])
        tell_dropped(self.spec, new.columns, scenario, every)
        tell_unlabelled(labels, every)
        self.fitted.save(self.folder / "encoding")
        save_waiting(self.folder / "encoding", self.waiting)
        (self.folder / "tables").mkdir()
        for name, table in new.tables.items():
            pq.write_table(table, self.folder / "tables" / f"{file_name(name)}.parquet")
        shutil.copyfile(old.folder / "samples.parquet", self.folder / "samples.parquet")
        write_cache(self.folder, content)

    def _both(self, old: np.ndarray, name: str) -> np.ndarray:
        """A column of the earlier rows and of the new ones."""
        return np.concatenate([old, *[part[name] for part in self.encoded]])

    def _bags(self, name: str) -> list[Bag]:
        """A ragged column of the earlier rows, as of their own periods, and of the new ones."""
        _, stored = self.earlier.stored(slice(0, self.base))
        own = stored.get(f"{name}@daily", stored[name])
        return [own, *[Bag(*part["bags"][name]) for part in self.encoded]]

    def _segments(self) -> np.ndarray:
        """Whether a new row is in each segment, (N, S) bool."""
        found = np.zeros((self.rows, len(self.spec.segments)), bool)
        for k, of in enumerate(self.spec.segments.values()):
            found[:, k] = of.rows(self.new.columns[of.by])
        return found

    def _ahead(self) -> tuple[dict[str, np.ndarray], dict[str, Bag]]:
        """Rows ahead: the earlier ones, and every key as of the period after the new ones.

        A key without a new event is as it was after its last one.
        """
        old = self.earlier
        idle = np.unique(np.concatenate([self._idle(side) for side in ("user", "item")]))
        idle = idle[np.argsort(old.ahead_row[idle], kind="stable")]  # a period's, in rows' order
        end = int(self.new.period[-1]) + 1
        row = [old.ahead_row, old.ahead_row[idle]]
        period = [old.column("ahead_period"), np.full(len(idle), end, np.int32)]
        daily = [old.column("ahead_daily"), np.zeros(len(idle), bool)]
        dense = [old.column("ahead_dense"), old.column("ahead_dense")[idle]]
        moving = old.manifest["ahead_columns"]
        for rows, encoded in self.ahead:
            row.append(self.base + rows)
            period.append((self.new.period[rows] + 1).astype(np.int32))
            daily.append(np.zeros(len(rows), bool))
            dense.append(encoded["dense"][:, moving])
        bags = {}
        for name in old.manifest["ahead_bags"]:
            stored = old.ahead_bag(name)
            new = [Bag(*encoded["bags"][name]) for _, encoded in self.ahead]
            bags[name] = _joined([stored, stored.take(idle), *new])
        found = [np.concatenate(parts) for parts in (row, period, daily, dense)]
        return dict(zip(AHEAD, found, strict=True)), bags

    def _idle(self, side: str) -> np.ndarray:
        """Latest place of each key without a new event: that of its last row."""
        old = self.earlier
        codes = (old.user if side == "user" else old.item)[old.ahead_row]
        own = self.user if side == "user" else self.item
        order = np.lexsort((old.column("ahead_period"), old.ahead_row, codes))
        order = order[np.append(codes[order][1:] != codes[order][:-1], True)]
        return order[~np.isin(codes[order], own)]

    def _facts(self, columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
        old, split = self.earlier.manifest, columns["split"]
        order = PointInTime(columns["period"], columns["time"], split)
        rows = {name: columns["scenario"] == k for k, name in enumerate(self.layout.scenarios)}
        rows |= dict(zip(self.layout.segments, columns["segments"].T, strict=True))
        return {
            "rows": {name: int((split == code).sum()) for name, code in SPLITS.items()},
            "auxiliary_rows": int((split == AUXILIARY).sum()),
            "periods": [*old["periods"], *self.new.period_values],
            "point_in_time": order.flags(rows),
            **vector_facts(self.spec),
        }


def _copy_state(data: Path, target: Path) -> None:
    """The state after all rows of earlier data."""
    newest = data / "state" / NEWEST
    appended = (data / "encoding" / "waiting.parquet").exists()
    if not newest.exists() and not appended:
        raise UserError(
            "The run was prepared by an earlier version, without what a refresh continues.",
            received=f"no folder '{newest}'",
            fix="run it again from the stage `prepare` in another folder",
        )
    shutil.copytree(newest if newest.exists() else data / "state", target)


def _codes(keys: pa.Array, new: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Codes of new keys (N,), and all keys with the unknown ones behind the others."""
    new = pc.cast(new, keys.type)
    fresh = new.filter(pc.invert(pc.is_in(new, value_set=keys))).unique()
    every = pa.concat_arrays([keys, fresh])
    return pc.index_in(new, value_set=every).to_numpy(zero_copy_only=False), every


def _daily_numbers(cache: EncodedCache) -> np.ndarray:
    """Dense columns with the moving ones as of each row's own period, (N, columns)."""
    stored: Mapping[str, np.ndarray] = cache.stored(slice(0, cache.rows))[0]
    dense = np.array(stored["dense"])
    moving = cache.manifest["moving_columns"]
    if moving:
        dense[:, moving] = stored["dense_daily"]
    return dense


def _joined(bags: list[Bag]) -> Bag:
    """Bags one after the other."""
    starts = np.cumsum([0, *[bag.splits[-1] for bag in bags]])
    splits = [bag.splits[:-1] + start for bag, start in zip(bags, starts, strict=False)]
    weights = [bag.weights for bag in bags if bag.weights is not None]
    return Bag(
        np.concatenate([bag.values for bag in bags]),
        np.concatenate([*splits, starts[-1:]]),
        np.concatenate(weights) if weights else None,
    )


def _last(codes: np.ndarray) -> np.ndarray:
    """Place of the last occurrence of every code."""
    _, reverse = np.unique(codes[::-1], return_index=True)
    return len(codes) - 1 - reverse
