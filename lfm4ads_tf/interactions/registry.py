"""The interaction layers, by the type that a block's configuration names."""

from __future__ import annotations

from typing import Any

from lfm4ads_tf.registry import Registry

INTERACTIONS: Registry[Any] = Registry(
    "interaction layer",
    {
        "fm": "lfm4ads_tf.interactions.fm:FM",
        "cross": "lfm4ads_tf.interactions.cross_network:CrossNetwork",
        "dnn": "lfm4ads_tf.interactions.dnn:DNN",
        "ipnn": "lfm4ads_tf.interactions.ipnn:IPNN",
        "mixer": "lfm4ads_tf.interactions.mixer:Mixer",
    },
)
"""Type -> `InteractionLayer`."""
