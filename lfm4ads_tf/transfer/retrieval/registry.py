"""Retrieval methods by what their names begin with."""

from __future__ import annotations

from typing import Any

from lfm4ads_tf.registry import Registry

_HERE = "lfm4ads_tf.transfer.retrieval"

RETRIEVAL_METHODS: Registry[Any] = Registry(
    "retrieval method",
    {
        "model/own": f"{_HERE}.own_towers:OwnTowers",
        "model/IR*": f"{_HERE}.projection:Projection",
    },
)
"""Form of the name -> a class that derives from `RetrievalMethod`, which reads the whole name."""
