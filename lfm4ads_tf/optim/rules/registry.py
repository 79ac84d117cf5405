"""Update rules by the name that a configuration gives them."""

from __future__ import annotations

from typing import Any

from lfm4ads_tf.registry import Registry

_HERE = "lfm4ads_tf.optim.rules"

RULES: Registry[Any] = Registry(
    "update rule",
    {
        "adagrad": f"{_HERE}.adagrad:Adagrad",
        "rowwise_adagrad": f"{_HERE}.adagrad:ROWWISE_ADAGRAD",
        "adam": f"{_HERE}.adam:LazyAdam",
        "adamw": f"{_HERE}.adam:ADAMW",
        "ftrl": f"{_HERE}.ftrl:Ftrl",
        "sgd": f"{_HERE}.sgd:Sgd",
    },
)
"""Name -> a rule's class, whose fields are its options, or a `RuleVariant` of one."""
