"""Names of stored representations.

    name        = "UR" | "IR" | ("CR_user@" | "CR_item@") layer ["~" aggregation]
    aggregation = a name of `AGGREGATIONS`, such as "last" ["-raw"]

A name without `~` is the configured aggregation. `-raw` is without layer normalisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from lfm4ads_tf.representations.config import RepresentationsConfig

Side = Literal["user", "item"]


def representation_names(config: RepresentationsConfig, layers: Sequence[str]) -> list[str]:
    """Names of everything that an extraction stores, in order.

    Args:
        config: Layers and aggregations.
        layers: Layers of the upstream's interaction block.
    """
    chosen = [n for n in layers if config.layers is None or n in config.layers]
    endings = [ending for ending, _, _ in config.variants()]
    crs = [cross_name(s, n) + e for s in ("user", "item") for n in chosen for e in endings]
    return ["UR", "IR", *crs]


def cross_name(side: str, layer: str) -> str:
    """Name of a side's CR under the configured aggregation."""
    return f"CR_{side}@{layer}"


def is_item_side(name: str) -> bool:
    """Whether a representation is stored by item key."""
    return name == "IR" or name.startswith("CR_item@")


def side_of(name: str) -> Side:
    """The side by whose key a representation is stored."""
    return "item" if is_item_side(name) else "user"
