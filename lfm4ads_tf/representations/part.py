"""One stored file of a representation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

PartState = Literal["train", "daily", "refresh"]


@dataclass(frozen=True)
class Part:
    """One Parquet file: the keys with events in one period, or those that were only refreshed.

    Attributes:
        file: Path within the version folder.
        valid_from: First period whose rows may see it.
        period: That period's value, such as a date.
        state: `train`: from training rows. `daily`: from valid and test rows of the period
            before, seen by later valid and test rows under `refresh: daily` only. `refresh`: UR or
            IR of the keys without a row in the last training period, by the weights and features
            of the end of training; seen like `train`.
        rows: Keys in the part.
    """

    file: str
    valid_from: int
    period: str
    state: PartState
    rows: int


def all_parts(entry: Mapping[str, Any]) -> list[Part]:
    """Parts of a representation in a manifest, by the period from which they are valid."""
    parts = [Part(**part) for part in (*entry["parts"], *entry.get("refreshed", []))]
    return sorted(parts, key=lambda part: part.valid_from)
