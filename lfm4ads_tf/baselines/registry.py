"""The baselines by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.registry import Registry

_HERE = "lfm4ads_tf.baselines"

BASELINES: Registry[Any] = Registry(
    "baseline",
    {
        "lightgbm": f"{_HERE}.light_gbm:LightGBM",
        "logistic_regression": f"{_HERE}.logistic_regression:LogisticRegression",
        "popularity": f"{_HERE}.popularity:Popularity",
        "constant": f"{_HERE}.constant:Constant",
    },
)
"""Name -> `Baseline`, in the order in which they are fitted and shown."""


def baselines_of(names: Iterable[str]) -> list[Any]:
    """The baselines of some names, each once and in the registry's order.

    Raises:
        UserError: A name is unknown.
    """
    asked = list(names)
    for name in asked:
        if name not in BASELINES:
            raise UserError(
                f"baseline.methods names the unknown '{name}'.{nearest(name, BASELINES)}",
                fix=f"use some of {', '.join(BASELINES)}",
            )
    return [BASELINES[name] for name in BASELINES if name in asked]
