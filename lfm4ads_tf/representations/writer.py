"""Writes one version of the stored representations."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lfm4ads_tf.files import write_json
from lfm4ads_tf.representations.names import is_item_side
from lfm4ads_tf.representations.part import Part, PartState, all_parts
from lfm4ads_tf.representations.store import RepresentationStore


class RepresentationWriter:
    """Writes the parts of a version, then its manifest.

    The two sides may be written by two threads.

    Args:
        folder: An existing, empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._parts: dict[str, list[Part]] = {}
        self._dims: dict[str, int] = {}
        self._events: dict[str, np.ndarray] = {}

    def inherit(self, earlier: RepresentationStore) -> None:
        """Takes over the parts of an earlier version; the files are linked where possible."""
        for name, entry in earlier.manifest["representations"].items():
            self._dims[name] = entry["dim"]
            self._parts[name] = all_parts(entry)
            (self.folder / name).mkdir()
            for part in self._parts[name]:
                try:
                    os.link(earlier.folder / part.file, self.folder / part.file)
                except OSError:  # another file system, or one without links
                    shutil.copyfile(earlier.folder / part.file, self.folder / part.file)

    def add(
        self,
        name: str,
        keys: pa.Array,
        vectors: np.ndarray,
        *,
        valid_from: int,
        period: str,
        state: PartState,
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
        (self.folder / name).mkdir(exist_ok=True)
        flat = pa.array(vectors.reshape(-1), pa.float32())  # (M d,)
        table = pa.table(
            {
                "key": keys,
                "valid_from": pa.repeat(pa.scalar(period, pa.string()), len(keys)),
                "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
            }
        )
        # Activations hardly compress; their minima and maxima tell nothing.
        pq.write_table(
            table,
            self.folder / file,
            use_dictionary=["key", "valid_from"],
            compression={"key": "snappy", "valid_from": "snappy", "vector.list.element": "none"},
            write_statistics=False,
        )
        part = Part(file, valid_from, period, state, len(keys))
        self._parts.setdefault(name, []).append(part)

    def add_rows(
        self, name: str, rows: np.ndarray, vectors: np.ndarray, known: np.ndarray, total: int
    ) -> None:
        """Writes what single rows see, in the mode `event`.

        Args:
            name: Representation.
            rows: Rows of the cache, (B,).
            vectors: (B, d) float32.
            known: Whether there is a vector, (B,).
            total: Rows of the cache.
        """
        if name not in self._events:
            self._dims[name] = vectors.shape[1]
            (self.folder / name).mkdir(exist_ok=True)
            self._events[name] = np.lib.format.open_memmap(
                self.folder / name / "events.npy", "w+", np.float32, (total, vectors.shape[1] + 1)
            )
        self._events[name][rows, :-1] = np.where(known[:, None], vectors, 0)  # (B, d)
        self._events[name][rows, -1] = known

    def close(self, manifest: Mapping[str, Any]) -> None:
        """Writes the manifest."""
        # Two threads may have written: the order is by side, then as each side was written.
        names = sorted(dict.fromkeys([*self._parts, *self._events]), key=is_item_side)
        entries: dict[str, Any] = {}
        for name in names:
            made = self._parts.get(name, [])
            parts = [asdict(p) for p in made if p.state != "refresh"]
            entries[name] = {"dim": self._dims[name], "parts": parts}
            if len(parts) < len(made):
                entries[name]["refreshed"] = [asdict(p) for p in made if p.state == "refresh"]
            if name in self._events:
                self._events[name].flush()  # type: ignore[attr-defined]
                entries[name]["events"] = f"{name}/events.npy"
        write_json(self.folder / "manifest.json", {**manifest, "representations": entries})
