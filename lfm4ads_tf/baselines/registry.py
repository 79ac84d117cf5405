"""The baselines by name."""

from __future__ import annotations

from collections.abc import Iterable

from lfm4ads_tf.baselines.baseline import Baseline
from lfm4ads_tf.baselines.constant import Constant
from lfm4ads_tf.baselines.light_gbm import LightGBM
from lfm4ads_tf.baselines.logistic_regression import LogisticRegression
from lfm4ads_tf.baselines.popularity import Popularity
from lfm4ads_tf.errors import UserError, nearest

BASELINES: dict[str, type[Baseline]] = {
    kind.name: kind for kind in (LightGBM, LogisticRegression, Popularity, Constant)
}
"""In the order in which they are fitted and shown."""


def baselines_of(names: Iterable[str]) -> list[type[Baseline]]:
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
    return [kind for name, kind in BASELINES.items() if name in asked]
