"""The upstream models, by the name that `upstream.model` gives."""

from __future__ import annotations

from typing import Any

from lfm4ads_tf.registry import Registry

UPSTREAMS: Registry[Any] = Registry(
    "upstream model",
    {
        "foundation": "lfm4ads_tf.models.foundation:FoundationModel",
        "mmoe": "lfm4ads_tf.models.mmoe:MMoE",
        "single_task": "lfm4ads_tf.models.single_task:SingleTask",
        "shared_bottom": "lfm4ads_tf.models.shared_bottom:SharedBottom",
        "omoe": "lfm4ads_tf.models.omoe:OMoE",
        "ple": "lfm4ads_tf.models.ple:PLE",
        "me_mmoe": "lfm4ads_tf.models.me_mmoe:MEMMoE",
        "me_ple": "lfm4ads_tf.models.me_ple:MEPLE",
        "stem": "lfm4ads_tf.models.stem:STEM",
        "stem_al": "lfm4ads_tf.models.stem_al:STEMAL",
        "star": "lfm4ads_tf.models.star:STAR",
        "pepnet": "lfm4ads_tf.models.pepnet:PEPNet",
        "crocodile": "lfm4ads_tf.models.crocodile:Crocodile",
        "ame": "lfm4ads_tf.models.ame:AME",
        "multi_embedding": "lfm4ads_tf.models.multi_embedding:MultiEmbedding",
        "esmm": "lfm4ads_tf.models.esmm:ESMM",
        "aitm": "lfm4ads_tf.models.aitm:AITM",
    },
)
"""Name -> `UpstreamModel`."""
