"""Kinds of exports by the names of their models."""

from __future__ import annotations

from typing import Any

from lfm4ads_tf.pipeline.served_names import FOUNDATION, RANKER
from lfm4ads_tf.registry import Registry

_HERE = "lfm4ads_tf.export.kinds"

KINDS: Registry[Any] = Registry(
    "kind of export",
    {
        FOUNDATION: f"{_HERE}.foundation:Foundation",
        "user_tower": f"{_HERE}.towers:UserTower",
        "item_tower": f"{_HERE}.towers:ItemTower",
        RANKER: f"{_HERE}.ranker:Ranker",
        "retrieval_": f"{_HERE}.retrieval:Retrieval",
    },
)
"""Name, or what it begins with where that ends in `_` -> a class that derives from `ExportKind`."""
