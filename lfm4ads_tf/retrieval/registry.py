"""Item indexes by name; each is exported as `retrieval_<name>`."""

from __future__ import annotations

from typing import Any

from lfm4ads_tf.registry import Registry

_HERE = "lfm4ads_tf.retrieval"

INDEXES: Registry[Any] = Registry(
    "item index",
    {
        "exact": f"{_HERE}.exact:ExactIndex",
        "ann": f"{_HERE}.inverted_index:InvertedIndex",
    },
)
"""Name -> a class that derives from `Index`."""
