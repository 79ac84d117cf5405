"""Weights of the upstream that module-level methods start from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.models.upstream import UpstreamModel
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.trained_models import load_upstream
from lfm4ads_tf.training.checkpoints import read_weights
from lfm4ads_tf.training.config import TrainingConfig
from lfm4ads_tf.transfer.downstream import DownstreamModel
from lfm4ads_tf.transfer.methods import Method
from lfm4ads_tf.transfer.warm_start import start

_loaded: dict[tuple[Path, float], UpstreamModel] = {}


def initialise(
    run: Run, model: DownstreamModel, method: Method, scenario: str, seed: int
) -> TrainingConfig:
    """Copies the upstream's weights as a method says and freezes what it wants frozen.

    Args:
        run: The run; its upstream of this seed is trained.
        model: The downstream at its own initial weights.
        method: What is copied.
        scenario: The scenario or segment that the model is for.
        seed: Seed of the upstream.

    Returns:
        How to train, with the factors of the copied weights' learning rates.

    Raises:
        UserError: The upstream or its snapshot is not there.
    """
    config = run.downstream_config(scenario)
    training = config.training
    if not method.copies:
        return training
    upstream, shares = snapshot(run, seed), scenario_shares(run.cache, scenario)
    rates: dict[str, float] = dict(training.optimizer.group_rates)
    rates |= start(upstream, model, method, shares, config.warm_start_rates)
    optimizer = training.optimizer.model_copy(update={"group_rates": rates})
    return training.model_copy(update={"optimizer": optimizer})


def snapshot(run: Run, seed: int) -> UpstreamModel:
    """The upstream of a seed with the weights of `downstream.warm_start_snapshot`.

    Raises:
        UserError: The upstream was not trained, or there is no such snapshot.
    """
    wanted = run.config.downstream.warm_start_snapshot
    folder = run.upstream(seed)
    source = folder / "weights"
    if wanted == "final" and run.version > 1:
        # A refreshed upstream has seen the held-out rows; what it was before them has not.
        wanted = run.held_out_from
    if wanted != "final":
        kept = sorted(int(p.name) for p in (folder / "snapshots").glob("*") if p.name.isdigit())
        period = kept[0] if kept and wanted == "first" else wanted
        if period not in kept:
            raise UserError(
                "The upstream has no such snapshot to start from.",
                received=f"downstream.warm_start_snapshot: {wanted}",
                fix=f"use final{', first or one of ' if kept else ''}"
                + ", ".join(str(k) for k in kept),
            )
        source = folder / "snapshots" / str(period)
    results = folder / "results.json"
    key = (source, results.stat().st_mtime if results.exists() else 0.0)
    if key not in _loaded:
        # Many small models start from one upstream, one after the other: keep the last one alone.
        model = load_upstream(run, seed)
        if source.parent != folder:
            read_weights(model, source)
        _loaded.clear()
        _loaded[key] = model
    return _loaded[key]


def scenario_shares(cache: EncodedCache, name: str) -> Mapping[int, float]:
    """Scenario index -> share of a scenario's or segment's training rows."""
    if name in cache.layout.scenarios:
        return {cache.layout.scenarios.index(name): 1.0}
    scenarios = np.asarray(cache.scenario[cache.rows_of("train", name)])
    values, counts = np.unique(scenarios[scenarios >= 0], return_counts=True)
    return {int(v): float(c) / len(scenarios) for v, c in zip(values, counts, strict=True)}
