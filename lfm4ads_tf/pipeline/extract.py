"""Stage `extract`: stored representations of one upstream."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.files import staged_folder
from lfm4ads_tf.models.upstream import Upstream
from lfm4ads_tf.pipeline.pretrain import load_upstream
from lfm4ads_tf.pipeline.run import Run, fingerprint
from lfm4ads_tf.representations.extract import extract as extract_all
from lfm4ads_tf.representations.store import RepresentationStore
from lfm4ads_tf.representations.writer import RepresentationWriter
from lfm4ads_tf.training.checkpoints import read_weights
from lfm4ads_tf.training.config import FittedTrainingConfig

_LOG = logging.getLogger(__name__)


def extract(run: Run, seed: int) -> None:
    """Writes `OUT/representations/seed_<s>/`: one Parquet file per representation and period."""
    target = run.representations(seed)
    if (target / "manifest.json").exists():
        return
    began = time.perf_counter()
    model = load_upstream(run, seed)
    config = run.config.representations
    with staged_folder(target) as staging:
        writer = RepresentationWriter(staging)
        extract_all(
            model,
            snapshot_loader(run, seed, model),
            run.cache,
            config,
            writer,
            auxiliary=run.config.upstream.training.auxiliary_passes > 0,
            quiet=run.quiet,
        )
        writer.close(
            {
                "version": representations_version(run, seed),
                "seed": seed,
                "data": run.cache.manifest["fingerprint"],
                **config.model_dump(mode="json"),
            }
        )
    _LOG.info("representations of seed %d in %.0f s", seed, time.perf_counter() - began)


def snapshot_loader(run: Run, seed: int, model: Upstream) -> Callable[[int | None], None]:
    """Loads the upstream's weights valid from a period, None for the end of training."""
    folder = run.upstream(seed)

    def load(period: int | None) -> None:
        source = folder / "weights" if period is None else folder / "snapshots" / str(period)
        read_weights(model, source)

    return load


def open_store(run: Run, seed: int, trained_with: str | None = None) -> RepresentationStore:
    """The representations of a seed.

    Args:
        trained_with: Version that the model to be served was trained with, None without a model.

    Raises:
        UserError: They were not extracted, come from another upstream or data, or are of another
            version than the model's.
    """
    folder = run.representations(seed)
    if not (folder / "manifest.json").exists():
        raise UserError(
            f"There are no representations of seed {seed} in '{run.out}'.",
            fix="run the stage `extract` first, or `run` for all stages",
        )
    store = RepresentationStore(folder)
    expected = representations_version(run, seed)
    if store.version != expected:
        raise UserError(
            "The stored representations come from another upstream.",
            received=f"version {store.version}, expected {expected}",
            fix=f"remove '{folder}' and run the stage `extract` again"
            if run.version == 1
            else f"put back what `refresh` made in '{folder}', or refresh the run anew",
        )
    store.require(trained_with)
    return store


def representations_version(run: Run, seed: int) -> str:
    """Name of the representations that a run's upstream gives."""
    number = "" if run.version == 1 else f"v{run.version}-"
    return f"{number}seed_{seed}-{upstream_fingerprint(run, seed)}"


def upstream_fingerprint(run: Run, seed: int) -> str:
    """Digest of what an upstream and its representations are made of."""
    upstream = run.config.upstream.model_dump(mode="json")
    representations = run.config.representations.model_dump(mode="json")
    training, default = upstream["training"], FittedTrainingConfig()
    del training["auto"]  # what it chose counts, not that it did
    for key in ("final_passes", "final_decay"):  # newer than the first runs
        if training[key] == getattr(default, key):
            del training[key]
    if not representations["aggregation_options"]:  # newer than the first runs
        del representations["aggregation_options"]
    return fingerprint([run.cache.manifest["fingerprint"], seed, upstream, representations])
