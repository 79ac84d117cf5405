"""What one call of the comparison of upstream models asks for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.models.registry import UPSTREAMS

Axis = Literal["task", "scenario"]
"""What models are compared by: each task on all rows, or each scenario's rows too."""
BASELINE = "shared_bottom"
"""The model that all are compared with where it is among them."""


@dataclass(frozen=True)
class ComparisonSettings:
    """One call of the comparison.

    Attributes:
        spec: Feature spec: a file, or the name of one that comes with the package.
        data_dir: Folder of the data files; None fetches or generates them.
        out: Where everything goes.
        models: Name in the results -> the registered upstream model; two names may be the same
            model with other keys.
        seeds: Seeds, the same for all models.
        rates: Factors of the configured learning rates that are tried.
        assignments: `key.path=value` overrides for all models.
        model_assignments: (name, `key.path=value`) overrides for one of them.
        further_baselines: Models that all are compared with, beside the usual one.
        axis: What the models are compared by.
        curves: Curve -> names of the models on it, which the page draws by the floats in tables.
        feedback_pair: Two tasks whose users' feedback makes slices, see `FeedbackSlices`; or none.
        overwrite: Whether a folder of another comparison is emptied.
        quiet: Whether progress is hidden.
        command: The command line, for the page.

    Raises:
        UserError: A model is unknown, not compared or named as another one; or there are no models,
            seeds or rates.
    """

    spec: Path
    data_dir: Path | None
    out: Path
    models: Mapping[str, str]
    seeds: tuple[int, ...]
    rates: tuple[float, ...] = (0.5, 1.0, 2.0)
    assignments: tuple[str, ...] = ()
    model_assignments: tuple[tuple[str, str], ...] = ()
    further_baselines: tuple[str, ...] = ()
    axis: Axis = "task"
    curves: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    feedback_pair: tuple[str, ...] = ()
    overwrite: bool = False
    quiet: bool = False
    command: str = ""

    def __post_init__(self) -> None:
        if not self.models:
            raise UserError(
                "--models needs names of upstream models.",
                received="none",
                fix=f"use some of {', '.join(UPSTREAMS)}",
            )
        for name, upstream in self.models.items():
            if upstream not in UPSTREAMS:
                raise UserError(
                    f"--models names the unknown upstream model '{upstream}'."
                    + nearest(upstream, UPSTREAMS),
                    received=", ".join(self.models.values()),
                    fix=f"use some of {', '.join(UPSTREAMS)}",
                )
            if name != upstream and name in UPSTREAMS:
                raise UserError(
                    f"--models gives '{upstream}' the name of another upstream model.",
                    received=f"{name}={upstream}",
                    fix="give it a name of its own",
                )
        named = [("--model-set", name) for name, _ in self.model_assignments]
        named += [("--baseline", name) for name in self.further_baselines]
        named += [("--curve", name) for names in self.curves.values() for name in names]
        for option, name in named:
            if name not in self.models:
                own = [n for n, upstream in self.models.items() if upstream == name]
                raise UserError(
                    f"{option} names '{name}', which is not compared.{nearest(name, self.models)}",
                    received=f"--models {','.join(self.models)}",
                    fix=f"name what it stands under, {' or '.join(own)}"
                    if own
                    else "add it to --models",
                )
        if not self.seeds or min(self.seeds) < 0:
            raise UserError("--seeds must be at least 1 and --seed not negative.")
        usable = bool(self.rates) and all(0 < rate < math.inf for rate in self.rates)
        if not usable or len(set(self.rates)) < len(self.rates):
            raise UserError(
                "--rates needs positive factors of the learning rates, each one once.",
                received=", ".join(f"{rate:g}" for rate in self.rates) or "none",
                fix="leave it out for 0.5,1,2",
            )

    @property
    def baselines(self) -> list[str]:
        """The models that the others are compared with: the usual one, then the named ones.

        Where neither is there, the first model.
        """
        usual = [BASELINE] if BASELINE in self.models else []
        return list(dict.fromkeys([*usual, *self.further_baselines])) or [*self.models][:1]
