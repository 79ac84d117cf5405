"""What one call of the experiment asks for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lfm4ads_tf.experiments.public_method import PublicMethod


@dataclass(frozen=True)
class ExperimentSettings:
    """One call of the experiment.

    Attributes:
        spec: Feature spec of the experiment.
        data_dir: Folder of the official files; None fetches them.
        out: Where everything goes.
        tabs: Scenarios with a downstream model.
        methods: Methods to train.
        seeds: One per trial.
        assignments: `key.path=value` overrides of the spec and the run configuration.
        overwrite: Whether an output folder of another experiment is emptied.
        quiet: Whether progress is hidden.
    """

    spec: Path
    data_dir: Path | None
    out: Path
    tabs: tuple[str, ...]
    methods: tuple[PublicMethod, ...]
    seeds: tuple[int, ...]
    assignments: tuple[str, ...] = ()
    overwrite: bool = False
    quiet: bool = False
