"""Stored representations: Parquet parts with a manifest, joined to rows as of their period."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lfm4ads_tf.data.cache import EncodedCache, Refresh
from lfm4ads_tf.data.input import RepresentationLookup
from lfm4ads_tf.data.splits import AUXILIARY, TRAIN
from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.files import write_json

State = Literal["train", "daily"]


@dataclass(frozen=True)
class Part:
    """One Parquet file: the keys with events in one period.

    Attributes:
        file: Path within the version folder.
        valid_from: First period whose rows may see it.
        period: That period's value, such as a date.
        state: `train`: from training rows. `daily`: from valid and test rows of the period
            before, seen by later valid and test rows under `refresh: daily` only.
        rows: Keys in the part.
    """

    file: str
    valid_from: int
    period: str
    state: State
    rows: int


class RepresentationStore:
    """Reads one version of the stored representations.

    Args:
        folder: `OUT/representations/<version>`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))
        self.version: str = self.manifest["version"]

    @property
    def dims(self) -> dict[str, int]:
        """Name -> width of every stored representation."""
        return {n: r["dim"] for n, r in self.manifest["representations"].items()}

    def lookup(
        self, cache: EncodedCache, names: Sequence[str], refresh: Refresh = "frozen"
    ) -> RepresentationLookup:
        """A function that joins representations to rows of the cache.

        A training row of period d sees the latest `train` part of its key with valid_from <= d.
        Any other row sees the latest `train` part, and under `daily` the latest `daily` part with
        valid_from <= d if there is one. In `static` mode every row sees the latest `train` part.

        Raises:
            UserError: A representation is not stored in this version.
        """
        tables = {name: self._as_of(cache, name, refresh) for name in names}

        def join(rows: np.ndarray) -> Mapping[str, np.ndarray]:
            return {name: table.take(rows) for name, table in tables.items()}

        return join

    def frozen(self, name: str) -> tuple[pa.Array, np.ndarray]:
        """The state at the end of training: keys (M,) and vectors (M, d)."""
        parts = self._read(name, ("train",))
        keys = pa.concat_arrays([k for _, k, _ in parts])
        vectors = np.concatenate([v for _, _, v in parts])
        # Parts are in the order of valid_from: the last occurrence of a key is its latest.
        encoded = keys.dictionary_encode()
        codes = encoded.indices.to_numpy(zero_copy_only=False)
        last = np.zeros(len(encoded.dictionary), np.int64)
        last[codes] = np.arange(len(codes))
        return encoded.dictionary, vectors[last]

    def _as_of(self, cache: EncodedCache, name: str, refresh: Refresh) -> _AsOf:
        everything = self.manifest["mode"] == "static"
        moving = refresh == "daily" and not everything
        states: tuple[State, ...] = ("train", "daily") if moving else ("train",)
        parts = self._read(name, states)
        side: Literal["user", "item"] = "item" if is_item_side(name) else "user"
        known = cache.keys(side)
        code_of = {key: code for code, key in enumerate(known.to_pylist())}
        horizon = max((p.valid_from for p, _, _ in parts), default=0) + 1
        codes, ranks, vectors = [], [], []
        for part, keys, values in parts:
            codes.append(np.array([code_of.get(k, -1) for k in keys.to_pylist()], np.int64))
            # Daily parts rank above all train parts, in order of their period.
            rank = part.valid_from + (horizon if part.state == "daily" else 0)
            ranks.append(np.full(len(keys), rank, np.int64))
            vectors.append(values)
        trained = np.isin(cache.split, (TRAIN, AUXILIARY))
        latest = np.where(trained & (not everything), cache.period, horizon - 1)
        if moving:
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

    def _read(self, name: str, states: Sequence[State]) -> list[tuple[Part, pa.Array, np.ndarray]]:
        stored = self.manifest["representations"]
        if name not in stored:
            raise UserError(
                f"The representation '{name}' is not stored.{nearest(name, stored)}",
                received=f"version {self.version} with {', '.join(stored)}",
                fix="use one of them, or store its layer (representations.layers)",
            )
        out = []
        for entry in stored[name]["parts"]:
            part = Part(**entry)
            if part.state in states:
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
            found = (position >= 0) & (self._keys[safe] == code)
            out[found, :-1] = self._vectors[safe[found]]
            out[found, -1] = 1.0
        return out


class RepresentationWriter:
    """Writes the parts of a version, then its manifest.

    Args:
        folder: An existing, empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parts: dict[str, list[Part]] = {}
        self._dims: dict[str, int] = {}

    def add(
        self,
        name: str,
        keys: pa.Array,
        vectors: np.ndarray,
        *,
        valid_from: int,
        period: str,
        state: State,
    ) -> None:
        """Writes one part.

        Args:
            name: Representation.
            keys: Raw keys (M,).
            vectors: (M, d) float32.
            valid_from, period, state: See `Part`.
        """
        self._dims[name] = vectors.shape[1]
        file = f"{name}/{state}_{valid_from}.parquet"
        (self._folder / name).mkdir(exist_ok=True)
        flat = pa.array(vectors.reshape(-1), pa.float32())  # (M d,)
        table = pa.table(
            {
                "key": keys,
                "valid_from": pa.array([period] * len(keys), pa.string()),
                "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
            }
        )
        pq.write_table(table, self._folder / file, use_dictionary=["key", "valid_from"])
        part = Part(file, valid_from, period, state, len(keys))
        self._parts.setdefault(name, []).append(part)

    def close(self, manifest: Mapping[str, Any]) -> None:
        """Writes the manifest."""
        representations = {
            name: {"dim": self._dims[name], "parts": [asdict(p) for p in parts]}
            for name, parts in self._parts.items()
        }
        write_json(self._folder / "manifest.json", {**manifest, "representations": representations})


def is_item_side(name: str) -> bool:
    """Whether a representation is stored by item key."""
    return name == "IR" or name.startswith("CR_item@")
