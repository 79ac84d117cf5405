"""Stored representations, joined to rows as of their period or event."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lfm4ads_tf.data.cache import EncodedCache, Refresh
from lfm4ads_tf.data.input import RepresentationJoin
from lfm4ads_tf.data.splits import AUXILIARY, TRAIN
from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.representations.names import side_of
from lfm4ads_tf.representations.part import Part, PartState, all_parts
from lfm4ads_tf.representations.stored_join import StoredJoin


class RepresentationStore:
    """Reads one version of the stored representations.

    Args:
        folder: `OUT/representations/<version>`, or what `extract` was given.

    Raises:
        UserError: The folder holds no stored representations.

    Example:
        >>> import tempfile
        >>> import lfm4ads_tf as lfm
        >>> log = lfm.encode(lfm.load_spec("synthetic", {"dataset_options": {"rows": 2000}}))
        >>> upstream, chain = lfm.FoundationModel(log.layout), lfm.PeriodChain(log)
        >>> upstream.compile(lfm.HybridOptimizer())
        >>> history = upstream.fit(chain.dataset(), callbacks=[chain], verbose=0)
        >>> folder = tempfile.TemporaryDirectory()
        >>> stored = lfm.extract(upstream, log, chain, folder=f"{folder.name}/stored")
        >>> again = lfm.RepresentationStore(f"{folder.name}/stored")
        >>> keys, vectors = again.frozen("UR")
        >>> vectors.shape == (len(keys), again.dims["UR"])
        True
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        manifest = self.folder / "manifest.json"
        if not manifest.exists():
            raise UserError(
                "The folder holds no stored representations.",
                received=str(folder),
                fix="store them with lfm4ads_tf.extract(upstream, log, chain, folder=...)",
            )
        self.manifest: dict[str, Any] = json.loads(manifest.read_text("utf-8"))
        self.version: str = self.manifest["version"]

    @property
    def dims(self) -> dict[str, int]:
        """Name -> width of every stored representation."""
        return {n: r["dim"] for n, r in self.manifest["representations"].items()}

    def lookup(
        self, cache: EncodedCache, names: Sequence[str], refresh: Refresh = "frozen"
    ) -> RepresentationJoin:
        """A function that joins representations to rows of the cache.

        A training row of period d sees the latest `train` part of its key with valid_from <= d.
        Any other row sees the latest `train` part, and under `daily` the latest `daily` part with
        valid_from <= d if there is one. In `static` mode every row sees the latest `train` part.
        In a refreshed version every row of period d sees the latest part with valid_from <= d.
        In `event` mode a row sees what is stored for the row itself, but under `frozen` a valid or
        test row sees the latest `train` part.

        Raises:
            UserError: A representation is not stored in this version, or for other rows.
        """
        recipe = {
            "folder": str(self.folder.resolve()),
            "version": self.version,
            "names": list(names),
            "refresh": refresh,
        }
        return StoredJoin({name: self._table(cache, name, refresh) for name in names}, recipe)

    @property
    def refreshed(self) -> bool:
        """Whether a refresh made this version, so that there is no `frozen` state of its own."""
        return bool(self.manifest.get("refreshed"))

    def frozen(self, name: str, until: int | None = None) -> tuple[pa.Array, np.ndarray]:
        """The state at the end of training, of a refreshed version the newest one.

        Args:
            name: The representation.
            until: Parts valid from a later period are left out.

        Returns:
            Keys (M,) and vectors (M, d).
        """
        parts = self._read(name, ("train", "daily") if self.refreshed else ("train",))
        parts = [p for p in parts if until is None or p[0].valid_from <= until]
        keys = pa.concat_arrays([k for _, k, _ in parts])
        vectors = np.concatenate([v for _, _, v in parts])
        # Parts are in the order of valid_from: the last occurrence of a key is its latest.
        encoded = keys.dictionary_encode()
        codes = encoded.indices.to_numpy(zero_copy_only=False)
        last = np.zeros(len(encoded.dictionary), np.int64)
        last[codes] = np.arange(len(codes))
        return encoded.dictionary, vectors[last]

    def require(self, version: str | None) -> None:
        """Refuses to serve a model that was trained with another version.

        Raises:
            UserError: It was.
        """
        if version is not None and version != self.version:
            raise UserError(
                "The model was trained with another version of the representations.",
                received=f"trained with {version}, stored is {self.version}",
                fix="train the model anew with the stored version, or restore the version it was "
                "trained with",
            )

    def _table(
        self, cache: EncodedCache, name: str, refresh: Refresh
    ) -> Callable[[np.ndarray], np.ndarray]:
        """Rows (B,) -> (B, d + 1) float32, the last column flagging presence."""
        entry = self._entry(name)
        if "events" not in entry:
            return self._as_of(cache, name, refresh).take
        stored = np.load(self.folder / entry["events"], mmap_mode="r")
        if len(stored) != cache.rows:
            raise UserError(
                "The representations of mode 'event' were stored for the rows of other data.",
                received=f"{len(stored)} rows, the data has {cache.rows}",
                fix="extract them anew",
            )
        if refresh == "daily":
            return lambda rows: np.asarray(stored[rows])
        table = self._as_of(cache, name, refresh)
        trained = np.isin(cache.split, (TRAIN, AUXILIARY))

        def take(rows: np.ndarray) -> np.ndarray:
            in_training = trained[rows]
            out = np.empty((len(rows), stored.shape[1]), np.float32)
            out[in_training] = stored[rows[in_training]]
            out[~in_training] = table.take(rows[~in_training])
            return out

        return take

    def _as_of(self, cache: EncodedCache, name: str, refresh: Refresh) -> _AsOf:
        everything = self.manifest["mode"] == "static"
        moving = refresh == "daily" and not everything
        states: tuple[PartState, ...] = (
            ("train", "daily") if moving or self.refreshed else ("train",)
        )
        parts = self._read(name, states)
        side = side_of(name)
        known = cache.keys(side)
        horizon = max((p.valid_from for p, _, _ in parts), default=0) + 1
        codes, ranks, vectors = [], [], []
        for part, keys, values in parts:
            places = pc.fill_null(pc.index_in(keys, value_set=known), -1)
            codes.append(places.to_numpy(zero_copy_only=False).astype(np.int64))
            # Daily parts rank above all train parts, in order of their period.
            above = part.state == "daily" and not self.refreshed
            rank = part.valid_from + (horizon if above else 0)
            ranks.append(np.full(len(keys), rank, np.int64))
            vectors.append(values)
        trained = np.isin(cache.split, (TRAIN, AUXILIARY))
        latest = np.where(trained & (not everything), cache.period, horizon - 1)
        if self.refreshed and not everything:
            latest = np.asarray(cache.period)
        elif moving:
            latest = np.where(trained, latest, horizon + cache.period)
        width = self.dims[name]
        return _AsOf(
            np.concatenate(codes) if codes else np.zeros(0, np.int64),
            np.concatenate(ranks) if ranks else np.zeros(0, np.int64),
            np.concatenate(vectors) if vectors else np.zeros((0, width), np.float32),
            cache.user if side == "user" else cache.item,
            latest,
            2 * horizon + int(cache.period.max()) + 2,
        )

    def _entry(self, name: str) -> Mapping[str, Any]:
        stored: dict[str, Any] = self.manifest["representations"]
        if name not in stored:
            raise UserError(
                f"The representation '{name}' is not stored.{nearest(name, stored)}",
                received=f"version {self.version} with {', '.join(stored)}",
                fix="use one of them, or store its layer (representations.layers) and aggregation "
                "(representations.aggregations)",
            )
        entry: Mapping[str, Any] = stored[name]
        return entry

    def _read(
        self, name: str, states: Sequence[PartState]
    ) -> list[tuple[Part, pa.Array, np.ndarray]]:
        out = []
        for part in all_parts(self._entry(name)):
            if part.state in states or (part.state == "refresh" and "train" in states):
                table = pq.read_table(self.folder / part.file)
                keys = table["key"].combine_chunks()
                flat = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
                out.append((part, keys, flat.reshape(len(keys), self.dims[name])))  # (M, d)
        return out


class _AsOf:
    """Latest vector of a row's key, as of the row's period."""

    def __init__(
        self,
        code: np.ndarray,
        rank: np.ndarray,
        vectors: np.ndarray,
        row_code: np.ndarray,
        row_rank: np.ndarray,
        span: int,
    ) -> None:
        self._span = span
        order = np.argsort(code * span + rank, kind="stable")
        self._codes = (code * span + rank)[order]
        self._keys = code[order]
        self._vectors = vectors[order]
        self._row_code = row_code
        self._row_rank = row_rank

    def take(self, rows: np.ndarray) -> np.ndarray:
        """(B, d + 1) float32, the last column flagging presence."""
        code = self._row_code[rows].astype(np.int64)
        wanted = code * self._span + self._row_rank[rows]
        position = np.searchsorted(self._codes, wanted, side="right") - 1
        safe = np.maximum(position, 0)
        out = np.zeros((len(rows), self._vectors.shape[1] + 1), np.float32)
        if len(self._keys):
            present = (position >= 0) & (self._keys[safe] == code)
            out[present, :-1] = self._vectors[safe[present]]
            out[present, -1] = 1.0
        return out


def open_join(recipe: Mapping[str, Any], cache: EncodedCache) -> RepresentationJoin:
    """The join that `RepresentationStore.lookup` gave in another process.

    Args:
        recipe: Its `StoredJoin.recipe`.
        cache: The encoded cache, as the other process has it.

    Raises:
        UserError: The store is not there, or of another version.
    """
    store = RepresentationStore(recipe["folder"])
    store.require(recipe["version"])
    return store.lookup(cache, recipe["names"], recipe["refresh"])
