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

_MIXED: dict[str, Any] = {"user_tower": [], "item_tower": []}
_RANKMIXER: dict[str, Any] = {
    **_MIXED,
    "block": {"structure": "stacked", "layers": [{"type": "mixer"}]},
}
_RANKUP: dict[str, Any] = {
    **_MIXED,
    "block": {
        "structure": "stacked",
        "layers": [
            {
                "type": "mixer",
                "order": "permuted",
                "sets": "each",
                "global_token": "mlp",
                "norm": "pre",
                "network": "swiglu",
                "readout": "task",
            }
        ],
    },
}


def _mixed(network: dict[str, Any], layer: str, *methods: str) -> dict[str, Any]:
    """A network of both models, and methods that read a layer of it, among them further ones."""
    cross = f"CR_user@{layer}"
    return {
        "upstream": {"network": network, "branches": False},
        "downstream": {
            "network": network,
            "methods": [
                "none",
                "feature/linear/UR",
                f"feature/mlp/UR+IR+{cross}",
                *methods,
                "full",
            ],
            "full": None,
        },
        "retrieval": {"methods": ["model/own", "model/IR*UR", f"model/IR*{cross}"]},
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
    # RankMixer's block (arXiv 2507.15551): tokens in the spec's order, post-normalisation, gelu,
    # the mean read out. Sizes are ours: the paper's are of thousands of fields.
    "rankmixer": _mixed(_RANKMIXER, "mixer_2"),
    # RankUp's (arXiv 2604.17878): permuted fields, two sets with tokens of their own, a global
    # token and one for each task, pre-normalisation, swiglu, two blocks; the cross token is of the
    # stored UR and IR, so the downstream has it.
    "rankup": {
        **_mixed(_RANKUP, "mixer_2", "feature/cross/UR+IR"),
        "embeddings": {"sets": 2},
    },
    # The sizes and the training of STEM-Net's released code (Su et al., AAAI 2024). Its L2 is over
    # the whole tables, ours over the rows of the batch; its best epoch is kept, as here.
    "stem_released": {
        "upstream": {
            "model": "stem",
            "network": {"user_tower": [], "item_tower": []},
            "stem": {
                "task_experts": 1,
                "shared_experts": 8,
                "expert_units": [512, 512, 512],
                "gate_units": [128, 64],
                "gate_bias": True,
                "task_units": [128, 64],
            },
            "embeddings": {"dim": 16, "init_scale": 1e-4},
            "training": {
                "auto": False,
                "schedule": "epochs",
                "batch_size": 4096,
                "epochs": 20,
                "patience": 1,
                "optimizer": {
                    "rule": "adam",
                    "table_learning_rate": 1e-3,
                    "dense_learning_rate": 1e-3,
                    "table_l2": 1e-6,
                    "clip_norm": 10.0,
                },
            },
        },
        "representations": {"snapshots": "single"},
    },
}
