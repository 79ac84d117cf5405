"""The parts of a refreshed version: upstream, representations, retrieval model."""

from __future__ import annotations

import logging
import os
import shutil
import time
from pathlib import Path

import numpy as np

from lfm4ads_tf.data.cache import Refresh
from lfm4ads_tf.files import staged_folder, write_json
from lfm4ads_tf.pipeline.extract import open_store, representations_version
from lfm4ads_tf.pipeline.learning_check import unlearnt, warn_unlearnt
from lfm4ads_tf.pipeline.pretrain import (
    load_upstream,
    stored_results,
    upstream_entries,
    upstream_trainer,
)
from lfm4ads_tf.pipeline.retrieval_choice import chosen_retrieval
from lfm4ads_tf.pipeline.retrieval_model import REFRESHED
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.scoring import predict
from lfm4ads_tf.representations.extract_periods import extend
from lfm4ads_tf.representations.store import RepresentationStore
from lfm4ads_tf.representations.writer import RepresentationWriter
from lfm4ads_tf.training.checkpoints import TrainingCheckpoint, read_weights, write_weights
from lfm4ads_tf.training.schedule import continuation

_LOG = logging.getLogger(__name__)
_SNAPSHOTS = "snapshots"


def continue_upstream(parent: Run, child: Run, seed: int) -> None:
    """Trains the parent's upstream on the periods that it has not seen, one chain step each.

    Weights and optimizer state are the parent's; rows of new ids start at their initial values.
    A held-out row of the results is scored by the weights from before its period.
    """
    folder, earlier = child.upstream(seed), parent.upstream(seed)
    if (folder / "results.json").exists():
        return
    cache, training = child.cache, child.config.upstream.training
    began = time.perf_counter()
    trainer = upstream_trainer(child, seed, label=f"upstream seed {seed}, version {child.version}")
    model = trainer.model
    TrainingCheckpoint(earlier, model, trainer.optimizer).restore()  # the optimizer's state
    read_weights(model, earlier / "weights")
    for snapshot in (earlier / _SNAPSHOTS).glob("*"):
        if not (folder / _SNAPSHOTS / snapshot.name).exists():
            _link_folder(snapshot, folder / _SNAPSHOTS / snapshot.name)
    result = trainer.fit(continuation(training, cache, _first_unseen(parent)))
    write_weights(model, folder / "weights")
    wall = time.perf_counter() - began

    def score(rows: np.ndarray, refresh: Refresh) -> np.ndarray:
        found = np.zeros((len(rows), len(cache.layout.tasks)), np.float32)
        periods = cache.period[rows]
        for period in np.unique(periods).tolist():
            read_weights(model, folder / _SNAPSHOTS / str(period))
            own = periods == period
            found[own] = predict(model, cache, rows[own], refresh=refresh)
        return found

    found = upstream_entries(child, score, seed, wall)
    poor = unlearnt(cache, found)
    report = {
        "history": result.history,
        "steps": result.steps,
        "examples_per_s": result.examples_per_s,
        "unlearnt": poor,
        "entries": found,
    }
    write_json(folder / "results.json", report)
    _LOG.info("upstream seed %d: %d more steps in %.0f s", seed, result.steps, wall)
    warn_unlearnt(f"upstream seed {seed}, version {child.version},", poor)


def extend_stored(parent: Run, child: Run, seed: int) -> None:
    """Continues the parent's representations with the new rows; no earlier event is read."""
    target = child.representations(seed)
    if (target / "manifest.json").exists():
        return
    began = time.perf_counter()
    cache, config = child.cache, child.config.representations
    earlier = open_store(parent, seed)
    of_parent = earlier.version
    model = load_upstream(child, seed)
    first, last = len(parent.cache.manifest["periods"]), len(cache.manifest["periods"]) - 1
    with staged_folder(target) as staging:
        for period in range(first, last + 1):
            folder = staging if period == last else staging / f".{period}"
            folder.mkdir(exist_ok=True)
            read_weights(model, child.upstream(seed) / _SNAPSHOTS / str(period + 1))
            writer = RepresentationWriter(folder)
            rows = np.flatnonzero(cache.period == period)
            extend(model, cache, config, writer, earlier, rows, period)
            writer.close(
                {
                    "version": representations_version(child, seed),
                    "seed": seed,
                    "data": cache.manifest["fingerprint"],
                    "refreshed": child.version,
                    "parent": of_parent,
                    **config.model_dump(mode="json"),
                }
            )
            earlier = RepresentationStore(folder)
        for period in range(first, last):
            shutil.rmtree(staging / f".{period}")
    _LOG.info("representations of seed %d in %.0f s", seed, time.perf_counter() - began)


def carry_retrieval(parent: Run, child: Run, seed: int) -> None:
    """Takes over the retrieval model that is exported: the index gets new items, not the model."""
    chosen = chosen_retrieval(parent) if seed == parent.config.seed else None
    if chosen is None:
        return
    scenario, method = chosen
    source = parent.retrieval(scenario, method.name, seed)
    target = child.retrieval(scenario, method.name, seed)
    if (target / "results.json").exists():
        return
    results = stored_results(source / "results.json")
    with staged_folder(target) as staging:
        _link_folder(source / "weights", staging / "weights")
        if (source / "partition.npz").exists():
            shutil.copyfile(source / "partition.npz", staging / "partition.npz")
        version = representations_version(child, seed) if method.sources else None
        results |= {"entries": [], "representations": version, REFRESHED: parent.version}
        write_json(staging / "results.json", results)


def _first_unseen(parent: Run) -> int:
    """First period that the parent's upstream was not trained on."""
    if parent.version > 1:
        return len(parent.cache.manifest["periods"])
    return parent.held_out_from


def _link_folder(source: Path, target: Path) -> None:
    """A folder's files under another name, as links where the file system has them."""
    with staged_folder(target) as staging:
        shutil.copytree(source, staging, dirs_exist_ok=True, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
