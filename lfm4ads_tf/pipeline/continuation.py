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
from lfm4ads_tf.pipeline.retrieval_choice import chosen_retrieval
from lfm4ads_tf.pipeline.retrieval_model import REFRESHED
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.scoring import predict_rows
from lfm4ads_tf.pipeline.stored_representations import open_store, representations_version
from lfm4ads_tf.pipeline.stored_results import stored_results
from lfm4ads_tf.pipeline.trained_models import load_upstream
from lfm4ads_tf.pipeline.upstream_training import UpstreamTraining
from lfm4ads_tf.representations.extract_periods import extend
from lfm4ads_tf.representations.store import RepresentationStore
from lfm4ads_tf.representations.writer import RepresentationWriter
from lfm4ads_tf.training.checkpoints import TrainingCheckpoint, read_weights
from lfm4ads_tf.training.schedule import Phase, continuation
from lfm4ads_tf.training.trainer import Trainer

_LOG = logging.getLogger(__name__)
_SNAPSHOTS = "snapshots"


def continue_upstream(parent: Run, child: Run, seed: int) -> None:
    """Trains the parent's upstream on the periods that it has not seen, one chain step each.

    Weights and optimizer state are the parent's; rows of new ids start at their initial values.
    A held-out row of the results is scored by the weights from before its period.
    """
    UpstreamContinuation(parent, child, seed).complete()


class UpstreamContinuation(UpstreamTraining):
    """The upstream of a refreshed version; see `continue_upstream`."""

    def __init__(self, parent: Run, child: Run, seed: int) -> None:
        super().__init__(child, seed, f"upstream seed {seed}, version {child.version}")
        self.parent = parent

    def trainer(self) -> Trainer:
        """The trainer at the parent's weights and state, with the parent's snapshots linked."""
        trainer, earlier = super().trainer(), self.parent.upstream(self.seed)
        TrainingCheckpoint(earlier, self.model, trainer.optimizers).restore()
        read_weights(self.model, earlier / "weights")
        for snapshot in (earlier / _SNAPSHOTS).glob("*"):
            if not (self.folder / _SNAPSHOTS / snapshot.name).exists():
                _link_folder(snapshot, self.folder / _SNAPSHOTS / snapshot.name)
        return trainer

    def phases(self) -> list[Phase]:
        """One chain step per period that the parent has not seen."""
        training = self.run.config.upstream.training
        return continuation(training, self.run.cache, _first_unseen(self.parent))

    def rows_seen(self) -> np.ndarray:
        """Those of all versions: the first one's, and what was held out or came after it."""
        cache = self.run.cache
        seen = (cache.period >= 0) & (cache.scenario >= 0)
        if self.run.config.upstream.training.auxiliary_passes:
            seen[cache.auxiliary_rows] = True
        return np.flatnonzero(seen)

    def probabilities(self, rows: np.ndarray, refresh: Refresh) -> np.ndarray:
        """Those of the snapshot from before each row's period."""
        cache = self.run.cache
        scores = np.zeros((len(rows), len(cache.layout.tasks)), np.float32)
        periods = cache.period[rows]
        for period in np.unique(periods).tolist():
            read_weights(self.model, self.folder / _SNAPSHOTS / str(period))
            chosen = periods == period
            scores[chosen] = predict_rows(self.model, cache, rows[chosen], refresh=refresh)
        return scores


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
