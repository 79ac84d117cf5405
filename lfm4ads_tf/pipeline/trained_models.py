"""The trained upstream and downstream models of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.models.upstream import UpstreamModel
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.stored_representations import open_store
from lfm4ads_tf.pipeline.stored_results import RESULTS, stored_results
from lfm4ads_tf.training.checkpoints import read_weights
from lfm4ads_tf.transfer.downstream import DownstreamModel
from lfm4ads_tf.transfer.methods import Method


def load_upstream(run: Run, seed: int) -> UpstreamModel:
    """The trained upstream of a seed.

    Raises:
        UserError: It was not trained yet.
    """
    folder = run.upstream(seed)
    if not (folder / RESULTS).exists():
        raise UserError(
            f"There is no trained upstream of seed {seed} in '{run.out}'.",
            fix="run the stage `pretrain` first, or `run` for all stages",
        )
    model = build.upstream(run.cache.layout, run.config, seed)
    read_weights(model, folder / "weights")
    return model


def load_downstream(run: Run, scenario: str, method: Method, seed: int) -> DownstreamModel:
    """A trained downstream model.

    Raises:
        UserError: It was not trained yet, or as another combination of the name `full`.
    """
    folder = run.downstream(scenario, method.name, seed)
    if not is_made(folder, method):
        raise UserError(
            f"There is no downstream model '{method.name}' of scenario '{scenario}' and seed "
            f"{seed} in '{run.out}'.",
            fix="run the stage `transfer` with this method and scenario first",
        )
    dims: Mapping[str, int] = {}
    if method.sources:
        trained_with = stored_results(folder / RESULTS)["representations"]
        dims = open_store(run, seed, trained_with).dims
    model = build.downstream(run.cache.layout, run.config, method, dims, seed)
    read_weights(model, folder / "weights")
    return model


def is_made(folder: Path, method: Method) -> bool:
    """Whether a folder holds a finished training of a method, not of another `full`."""
    path = folder / RESULTS
    if not path.exists():
        return False
    return bool(stored_results(path).get("resolved", method.resolved) == method.resolved)
