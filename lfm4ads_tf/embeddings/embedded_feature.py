"""One feature that reads an embedding table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

COMBINERS = ("mean", "sum", "max")


@dataclass(frozen=True)
class EmbeddedFeature:
    """One feature that reads a table.

    Args:
        name: Unique name.
        table: Name of its table; several features may name the same.
        combiner: None for a single-valued feature; "mean", "sum" or "max" for a bag of values.
                The maximum is taken element by element and knows no weights.

    Example:
        >>> import lfm4ads_tf as lfm
        >>> lfm.EmbeddedFeature("clicked", table="item", combiner="mean").table
        'item'
    """

    name: str
    table: str
    combiner: Literal["mean", "sum", "max"] | None = None
