"""The rows of a table as `tables.json` describes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StoredSegment:
    """One file of consecutive rows.

    Attributes:
        file: Name of the file.
        rows: Its rows.
        crc32: Checksum of its elements.
    """

    file: str
    rows: int
    crc32: int


@dataclass(frozen=True)
class StoredRows:
    """The rows of a table, or of one of its slots, in the order of the ids.

    Attributes:
        storage: Type of the elements; bfloat16 is kept as its bits, in uint16.
        width: Elements per row.
        segments: The files, in the order of their rows. The last row of the last one is the
            missing id's.
    """

    storage: str
    width: int
    segments: tuple[StoredSegment, ...]

    @property
    def rows(self) -> int:
        """Rows, the missing id's included."""
        return sum(segment.rows for segment in self.segments)

    def placed(self) -> Iterator[tuple[int, StoredSegment]]:
        """First row of each segment, and the segment."""
        start = 0
        for segment in self.segments:
            yield start, segment
            start += segment.rows

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; of one segment, those that a table in one file has always had."""
        kept = {"storage": self.storage, "rows": self.rows, "width": self.width}
        if len(self.segments) == 1:
            (only,) = self.segments
            return {"file": only.file, **kept, "crc32": only.crc32}
        return kept | {"segments": [vars(segment) for segment in self.segments]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> StoredRows:
        """The counterpart of `to_json`.

        Raises:
            ValueError, KeyError, TypeError: `values` is something else.
        """
        rows = int(values["rows"])
        if "segments" in values:
            segments = tuple(StoredSegment(**segment) for segment in values["segments"])
        else:
            segments = (StoredSegment(values["file"], rows, values["crc32"]),)
        stored = cls(values["storage"], int(values["width"]), segments)
        if not segments or stored.rows != rows:
            raise ValueError(f"segments of {stored.rows} rows, expected {rows}")
        return stored
