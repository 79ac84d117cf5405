"""Stage `transfer`: per-scenario downstream models, one per method and seed."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lfm4ads_tf.data.cache import Refresh
from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.files import write_arrays, write_json
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.pipeline.auto import choose_downstream
from lfm4ads_tf.pipeline.choice import read_method
from lfm4ads_tf.pipeline.extract import open_store
from lfm4ads_tf.pipeline.initial_weights import initialise
from lfm4ads_tf.pipeline.learning_check import unlearnt, warn_unlearnt
from lfm4ads_tf.pipeline.losses import downstream_loss
from lfm4ads_tf.pipeline.pretrain import stored_results
from lfm4ads_tf.pipeline.pretrained_tables import load_pretrained_tables
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.scoring import Slices, entries, mean_auc, predict
from lfm4ads_tf.progress import Activity
from lfm4ads_tf.training.checkpoints import read_weights, write_weights
from lfm4ads_tf.training.schedule import epochs
from lfm4ads_tf.training.trainer import Trainer
from lfm4ads_tf.transfer.downstream import DownstreamModel
from lfm4ads_tf.transfer.methods import Method

_LOG = logging.getLogger(__name__)


def transfer(run: Run, seed: int) -> None:
    """Trains every method in every scenario for one seed."""
    methods, scenarios = run_methods(run), downstream_scenarios(run)
    total = len(methods) * len(scenarios)
    with Activity(f"models of seed {seed}", total, quiet=run.quiet) as activity:
        for scenario in scenarios:
            for method in methods:
                train_downstream(run, scenario, method, seed)
                activity.advance(1)


def run_methods(run: Run) -> list[Method]:
    """The configured methods; `upstream` needs no downstream model and is always scored."""
    names = [m for m in run.config.downstream.methods if m != "upstream"]
    return [read_method(run, name) for name in names]


def downstream_scenarios(run: Run) -> list[str]:
    """Scenarios and segments with a downstream model, largest first.

    Raises:
        UserError: A scenario asked for by name is unknown, has no training row, or has one class.
    """
    cache = run.cache
    cache.layout.without(run.config.downstream.omit)  # a wrong pattern is refused as early
    asked = run.config.scenarios
    known = [*cache.layout.scenarios, *cache.layout.segments]
    if asked is not None:
        for name in asked:
            if name not in known:
                raise UserError(
                    f"The scenario '{name}' is unknown.{nearest(name, known)}",
                    fix=f"use some of {', '.join(known)}",
                )
            problem = _untrainable(run, name)
            if problem:
                raise UserError(
                    f"The scenario '{name}' cannot be trained.",
                    received=problem,
                    fix="leave it out of --scenarios",
                )
        return list(asked)
    problems = {name: _skipped(run, name) for name in _largest_first(run)}
    return [name for name, problem in problems.items() if problem is None]


def warn_skipped(run: Run) -> None:
    """Says which scenarios get no downstream model, and why, unless scenarios were asked for."""
    if run.config.scenarios is None:
        for name in _largest_first(run):
            problem = _skipped(run, name)
            if problem is not None:
                _LOG.warning("scenario '%s' is skipped: %s", name, problem)


def _largest_first(run: Run) -> list[str]:
    """Scenarios and segments with training rows, largest first."""
    layout = run.cache.layout
    names = [*layout.scenarios, *layout.segments]
    counts = {s: len(run.cache.rows_of("train", s)) for s in names}
    return sorted((s for s, n in counts.items() if n), key=lambda s: -counts[s])


def _skipped(run: Run, scenario: str) -> str | None:
    """Why a scenario that was not asked for by name gets no model, None if it gets one."""
    count = len(run.cache.rows_of("train", scenario))
    if count < run.config.downstream.min_rows:
        return f"{count} training rows, fewer than downstream.min_rows"
    return _untrainable(run, scenario)


def train_downstream(run: Run, scenario: str, method: Method, seed: int) -> None:
    """Trains one model and scores valid and test rows; see the folder's `results.json`."""
    folder = run.downstream(scenario, method.name, seed)
    if _is_made(folder, method):
        if method.sources:  # not one that another version's representations made
            open_store(run, seed, stored_results(folder / "results.json")["representations"])
        return
    if (folder / "results.json").exists():
        shutil.rmtree(folder)  # `full` stood for something else
    choose_downstream(run, scenario)
    cache, config = run.cache, run.downstream_config(scenario)
    began = time.perf_counter()
    store = open_store(run, seed) if method.sources else None
    dims = {} if store is None else store.dims
    lookups = {
        refresh: None if store is None else store.lookup(cache, method.sources, refresh)
        for refresh in ("frozen", "daily")
    }
    whole = run.config.model_copy(update={"downstream": config})
    model = build.downstream(cache.layout, whole, method, dims, seed)
    if method.warm_start is None:
        load_pretrained_tables(run, model.backbone.embeddings, config.embeddings)
    training = initialise(run, model, method, scenario, seed)
    valid = cache.rows_of("valid", scenario)
    trainer = Trainer(
        model,
        model.all_embeddings,
        downstream_loss(model, cache, config),
        cache,
        training,
        seed=seed,
        label=f"{scenario} {method.name} seed {seed}",
        folder=folder,
        tensorboard=run.tensorboard(folder),
        representations=lookups["frozen"],
        validate=lambda: mean_auc(
            cache, valid, predict(model, cache, valid, representations=lookups["frozen"])
        ),
        validate_start=method.copies,
        quiet=run.quiet,
    )
    result = trainer.fit(epochs(training, cache.rows_of("train", scenario)))
    write_weights(model, folder / "weights")
    wall = round(time.perf_counter() - began, 2)
    found: list[dict[str, Any]] = []
    stored: dict[str, np.ndarray] = {}
    slices = Slices(cache, run.spec)
    refreshes: tuple[Refresh, ...] = ("frozen", "daily")
    for split in ("valid", "test"):
        rows = cache.rows_of(split, scenario)
        stored[f"{split}_rows"] = rows
        for refresh in refreshes:
            scores = predict(model, cache, rows, refresh=refresh, representations=lookups[refresh])
            stored[f"{split}_{refresh}"] = scores
            found += entries(
                cache,
                slices,
                rows,
                scores,
                stage="downstream",
                scenario=scenario,
                method=method.name,
                refresh=refresh,
                seed=seed,
                split=split,
                wall_s=wall,
            )
    write_arrays(folder / "predictions.npz", stored)
    poor = unlearnt(cache, found, scenario)
    report = {
        "resolved": method.resolved,
        "history": result.history,
        "best": result.best,
        "steps": result.steps,
        "examples_per_s": result.examples_per_s,
        "representations": None if store is None else store.version,
        "unlearnt": poor,
        "entries": found,
    }
    write_json(folder / "results.json", report)
    warn_unlearnt(f"{scenario} {method.name} seed {seed}", poor)


def _is_made(folder: Path, method: Method) -> bool:
    """Whether a folder holds a finished training of a method, not of another `full`."""
    path = folder / "results.json"
    if not path.exists():
        return False
    return bool(stored_results(path).get("resolved", method.resolved) == method.resolved)


def load_downstream(run: Run, scenario: str, method: Method, seed: int) -> DownstreamModel:
    """A trained downstream model.

    Raises:
        UserError: It was not trained yet, or as another combination of the name `full`.
    """
    folder = run.downstream(scenario, method.name, seed)
    if not _is_made(folder, method):
        raise UserError(
            f"There is no downstream model '{method.name}' of scenario '{scenario}' and seed "
            f"{seed} in '{run.out}'.",
            fix="run the stage `transfer` with this method and scenario first",
        )
    dims: Mapping[str, int] = {}
    if method.sources:
        trained_with = stored_results(folder / "results.json")["representations"]
        dims = open_store(run, seed, trained_with).dims
    model = build.downstream(run.cache.layout, run.config, method, dims, seed)
    read_weights(model, folder / "weights")
    return model


def _untrainable(run: Run, scenario: str) -> str | None:
    """Why a scenario cannot be trained, None if it can."""
    cache = run.cache
    rows = cache.rows_of("train", scenario)
    if not len(rows):
        return "no training row"
    for k, task in enumerate(cache.layout.tasks):
        labels = cache.labels[rows, k]
        if len(np.unique(labels[np.isfinite(labels)])) < 2:
            return f"task '{task}' has one class in its {len(rows)} training rows"
    return None
