"""Aggregations by the name that a configuration, and what is stored, gives them."""

from __future__ import annotations

from typing import Any

from lfm4ads_tf.registry import Registry

_HERE = "lfm4ads_tf.representations.aggregations"

AGGREGATIONS: Registry[Any] = Registry(
    "aggregation",
    {
        "last": f"{_HERE}.last:Last",
        "mean": f"{_HERE}.mean:Mean",
        "count_decay": f"{_HERE}.count_decay:CountDecay",
        "time_decay": f"{_HERE}.time_decay:TimeDecay",
    },
)
"""Name -> a class that derives from `Aggregation`."""
