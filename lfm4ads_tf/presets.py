"""Named sets of run-configuration overrides."""

from __future__ import annotations

from typing import Any

_PUBLIC_NETWORK: dict[str, Any] = {
    "user_tower": [],
    "item_tower": [],
    "shared_head": False,
    "block": {
        "layers": [
            {"type": "cross", "depth": 3, "rank": None},
            {"type": "dnn", "units": [360, 360], "activate_input": True},
        ]
    },
}

PRESETS: dict[str, dict[str, Any]] = {
    # The network of the LFM4Ads public experiment (arXiv 2508.14948): embeddings of width 10 and
    # no tower MLP (UR = the concatenated user fields), 3 full-rank cross layers, 2 hidden layers
    # that each read the activated output before them, one logit per scenario. On the 36 fields of
    # `feature_specs/kuairand_public.yaml` the stream is 360 wide. Its results are those of given
    # settings: nothing is searched.
    "public_experiment": {
        "upstream": {"network": _PUBLIC_NETWORK, "training": {"auto": False}},
        "downstream": {"network": _PUBLIC_NETWORK, "training": {"auto": False}},
        "embeddings": {"dim": 10},
    },
}
