"""Which baselines a run fits."""

from __future__ import annotations

from lfm4ads_tf.strict import StrictModel


class BaselineConfig(StrictModel):
    """Baselines beside the models, see docs/baselines.md.

    Attributes:
        enabled: Whether `run` fits them.
        methods: Their names: `lightgbm`, `logistic_regression`, `popularity`, `constant`.
    """

    enabled: bool = True
    methods: list[str] = ["lightgbm", "logistic_regression", "popularity", "constant"]
