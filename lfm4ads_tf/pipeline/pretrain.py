"""Stage `pretrain`: the upstream."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from lfm4ads_tf.data.cache import Refresh
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.files import write_arrays, write_json
from lfm4ads_tf.models.upstream import UpstreamModel
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.pipeline.auto import choose_upstream
from lfm4ads_tf.pipeline.global_entries import global_entries
from lfm4ads_tf.pipeline.learning_check import unlearnt, warn_unlearnt
from lfm4ads_tf.pipeline.losses import task_loss
from lfm4ads_tf.pipeline.pretrained_tables import load_pretrained_tables
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.scoring import mean_auc, predict
from lfm4ads_tf.training.checkpoints import read_weights, write_weights
from lfm4ads_tf.training.schedule import Phase, chain, epochs
from lfm4ads_tf.training.trainer import Trainer

_LOG = logging.getLogger(__name__)


def pretrain(run: Run, seed: int) -> None:
    """Trains the upstream of one seed, keeps its snapshots, and scores valid and test rows.

    `OUT/upstream/seed_<s>/` holds `weights/`, `snapshots/<period>/`, `manifest.json` of the
    tables, `predictions.npz` and, when all is done, `results.json`.
    """
    folder = run.upstream(seed)
    if (folder / "results.json").exists():
        return
    check_schedule(run)
    choose_upstream(run)
    cache = run.cache
    began = time.perf_counter()
    valid = cache.rows_of("valid")
    trainer = upstream_trainer(
        run,
        seed,
        label=f"upstream seed {seed}",
        validate=lambda model: mean_auc(cache, valid, predict(model, cache, valid)),
    )
    model = trainer.model
    result = trainer.fit(_phases(run))
    write_weights(model, folder / "weights")
    wall = time.perf_counter() - began
    found = _score(run, model, seed, wall)
    poor = unlearnt(cache, found)
    report = {
        "history": result.history,
        "curve": result.curve,
        "steps": result.steps,
        "examples_per_s": result.examples_per_s,
        "unlearnt": poor,
        "entries": found,
    }
    write_json(folder / "results.json", report)
    _LOG.info("upstream seed %d: %d steps in %.0f s", seed, result.steps, wall)
    warn_unlearnt(f"upstream seed {seed}", poor)


def check_schedule(run: Run) -> None:
    """Refuses a schedule whose weights cannot be point in time where they must be.

    Raises:
        UserError: They cannot.
    """
    training = run.config.upstream.training
    if training.schedule == "epochs" and run.config.representations.snapshots == "daily":
        raise UserError(
            "Daily snapshots need the `chain` schedule: weights that saw all periods cannot be "
            "point in time.",
            received="upstream.training.schedule: epochs, representations.snapshots: daily",
            fix="set upstream.training.schedule=chain, or representations.snapshots=single for a "
            "comparison",
        )


def upstream_trainer(
    run: Run,
    seed: int,
    *,
    label: str,
    validate: Callable[[UpstreamModel], float | None] | None = None,
) -> Trainer:
    """The trainer of an upstream at its initial weights; writes `manifest.json` of its tables.

    Args:
        run: The run.
        seed: The upstream's seed.
        label: Name of the training in messages.
        validate: Model -> the value to maximise; None where no phase validates.
    """
    cache, training, folder = run.cache, run.config.upstream.training, run.upstream(seed)
    model = build.upstream(cache.layout, run.config, seed)
    embeddings = model.backbone.embeddings
    load_pretrained_tables(run, embeddings, run.config.upstream.embeddings)
    write_json(folder / "manifest.json", embeddings.manifest())
    return Trainer(
        model,
        [embeddings],
        task_loss(model, cache, training.task_weights),
        cache,
        training,
        seed=seed,
        label=label,
        folder=folder,
        tensorboard=run.tensorboard(folder),
        validate=None if validate is None else lambda: validate(model),
        watch=lambda rows: mean_auc(cache, rows, predict(model, cache, rows)),
        quiet=run.quiet,
    )


def load_upstream(run: Run, seed: int) -> UpstreamModel:
    """The trained upstream of a seed.

    Raises:
        UserError: It was not trained yet.
    """
    folder = run.upstream(seed)
    if not (folder / "results.json").exists():
        raise UserError(
            f"There is no trained upstream of seed {seed} in '{run.out}'.",
            fix="run the stage `pretrain` first, or `run` for all stages",
        )
    model = build.upstream(run.cache.layout, run.config, seed)
    read_weights(model, folder / "weights")
    return model


def stored_results(path: Any) -> dict[str, Any]:
    """Reads a `results.json`."""
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def _phases(run: Run) -> list[Phase]:
    training = run.config.upstream.training
    if training.schedule == "chain":
        return chain(training, run.cache)
    auxiliary = run.cache.auxiliary_rows
    first = [Phase(f"auxiliary_{k}", auxiliary) for k in range(training.auxiliary_passes)]
    return (first if len(auxiliary) else []) + epochs(training, run.cache.train_rows)


def _score(run: Run, model: UpstreamModel, seed: int, wall: float) -> list[dict[str, Any]]:
    def score(rows: np.ndarray, refresh: Refresh) -> np.ndarray:
        return predict(model, run.cache, rows, refresh=refresh)

    return upstream_entries(run, score, seed, wall)


def upstream_entries(
    run: Run, score: Callable[[np.ndarray, Refresh], np.ndarray], seed: int, wall: float
) -> list[dict[str, Any]]:
    """Entries for all rows, each scenario and each segment, on valid and test, both refreshes.

    Args:
        run: The run; the predictions are kept in its folder.
        score: Rows (M,) and a refresh -> probabilities (M, T).
        seed: The upstream's seed.
        wall: Seconds of training.
    """
    identity: dict[str, Any] = {"stage": "upstream", "method": "upstream", "seed": seed}
    found, stored = global_entries(run, score, **identity, wall_s=round(wall, 2))
    write_arrays(run.upstream(seed) / "predictions.npz", stored)
    return found
