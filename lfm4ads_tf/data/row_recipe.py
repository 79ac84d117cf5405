"""What rows are read from, in words that another process opens."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from lfm4ads_tf.data.cache import EncodedCache, Refresh
from lfm4ads_tf.data.packed import PackedCache
from lfm4ads_tf.data.row_source import RepresentationJoin, RowSource
from lfm4ads_tf.errors import UserError

RECIPE = "recipe"
"""Attribute of a join: plain values, from which its `OpenJoin` makes it again."""
OpenJoin = Callable[[Mapping[str, Any], EncodedCache], RepresentationJoin]
"""A join's recipe and the cache -> the join."""
_ASKING = uuid.uuid4().hex  # this process


@dataclass(frozen=True)
class RowRecipe:
    """What rows are read from: names of folders instead of open ones.

    Row weights are no part of it: they are in memory alone, and travel with the rows.

    Attributes:
        cache: Absolute folder, or address, of the encoded cache.
        packed: Whether it is in packed form.
        fingerprint: Of the encoded data.
        refresh, ahead: See `RowSource`.
        join: Recipe of the stored representations, None without transfer.
        asking: The process that chooses the rows. What one has had opened is opened anew for the
            next: between them the run folder may have been made again under the same names.
    """

    cache: str
    packed: bool
    fingerprint: str
    refresh: Refresh
    ahead: bool
    join: Mapping[str, Any] | None
    asking: str

    @classmethod
    def of(cls, source: RowSource) -> Self:
        """The recipe of a source.

        Raises:
            ValueError: Its representations are no stored ones.
        """
        join = None
        if source.representations is not None:
            join = getattr(source.representations, RECIPE, None)
            if join is None:
                raise ValueError("A cluster reads stored representations alone.")
        cache = source.cache
        packed = isinstance(cache, PackedCache)
        place = cache.place if isinstance(cache, PackedCache) else str(cache.folder)
        if "://" not in place:
            place = str(Path(place).resolve())
        fingerprint = cache.manifest["fingerprint"]
        return cls(place, packed, fingerprint, source.refresh, source.ahead, join, _ASKING)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The recipe of `to_json`'s text."""
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """The recipe as text."""
        return json.dumps(asdict(self), sort_keys=True)

    def open(self, open_join: OpenJoin) -> RowSource:
        """The source; its order and batch size are up to who reads it.

        Raises:
            UserError: What it names is not there, or damaged.
        """
        try:
            cache = PackedCache(self.cache) if self.packed else EncodedCache(Path(self.cache))
        except OSError as error:
            raise UserError(
                "The encoded data cannot be read by a process that is to read their rows.",
                received=f"{self.cache}: {error.strerror or error}",
                fix="put --out on a folder that all processes of the cluster see",
            ) from error
        if cache.manifest["fingerprint"] != self.fingerprint:
            raise UserError(
                "The encoded data are others here than where the rows are chosen.",
                received=f"{self.cache}: {cache.manifest['fingerprint']}, "
                f"expected {self.fingerprint}",
                fix="let all processes of the cluster see one folder",
            )
        join = None if self.join is None else open_join(self.join, cache)
        return RowSource(
            cache,
            lambda _: np.zeros(0, np.int64),
            batch_size=1,
            refresh=self.refresh,
            representations=join,
            ahead=self.ahead,
        )
