"""Stage `extract`: stored representations of one upstream."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from lfm4ads_tf.files import staged_folder
from lfm4ads_tf.models.upstream import UpstreamModel
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.pipeline.stored_representations import representations_version
from lfm4ads_tf.pipeline.trained_models import load_upstream
from lfm4ads_tf.representations.extract_periods import extract_periods
from lfm4ads_tf.representations.writer import RepresentationWriter
from lfm4ads_tf.training.checkpoints import read_weights

_LOG = logging.getLogger(__name__)


def extract(run: Run, seed: int) -> None:
    """Writes `OUT/representations/seed_<s>/`: one Parquet file per representation and period."""
    target = run.representations(seed)
    if (target / "manifest.json").exists():
        return
    began = time.perf_counter()
    config = run.config.representations
    with run.execution.scope(), staged_folder(target) as staging:
        model = load_upstream(run, seed)
        writer = RepresentationWriter(staging)
        extract_periods(
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


def snapshot_loader(run: Run, seed: int, model: UpstreamModel) -> Callable[[int | None], None]:
    """Loads the upstream's weights valid from a period, None for the end of training."""
    folder = run.upstream(seed)

    def load(period: int | None) -> None:
        source = folder / "weights" if period is None else folder / "snapshots" / str(period)
        read_weights(model, source)

    return load
