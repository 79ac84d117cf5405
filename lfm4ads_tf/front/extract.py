"""Stored representations of an upstream."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.files import staged_folder
from lfm4ads_tf.front.encoded_log import EncodedLog
from lfm4ads_tf.front.new_folder import new_folder
from lfm4ads_tf.front.period_chain import PeriodChain
from lfm4ads_tf.models.example_batch import example_batch
from lfm4ads_tf.models.upstream import UpstreamModel
from lfm4ads_tf.representations.config import RepresentationsConfig
from lfm4ads_tf.representations.extract_periods import extract_periods
from lfm4ads_tf.representations.store import RepresentationStore
from lfm4ads_tf.representations.writer import RepresentationWriter
from lfm4ads_tf.training.checkpoints import read_weights, write_weights


def extract(
    upstream: UpstreamModel,
    log: EncodedLog,
    chain: PeriodChain | None = None,
    *,
    config: RepresentationsConfig = RepresentationsConfig(),  # noqa: B008 - frozen
    folder: Path | str | None = None,
) -> RepresentationStore:
    """Stores UR and IR of every user and item, and the CR of every layer, period by period.

    What a row of period d sees was computed from events before d, by weights that have seen none
    of d or later: those that the chain kept.

    Args:
        upstream: The model that was fitted along the chain; its weights are left as they are.
        log: The encoded log.
        chain: The chain; only representations of `snapshots="single"`, which know every training
            label, do without.
        config: Aggregation, decay, layers; see `lfm4ads_tf.representations.config`.
        folder: Where they go, empty or not there; a temporary folder when absent, which is removed
            with the result.

    Returns:
        The stored representations: `dims` name -> width d; `frozen(name)` keys (M,) and vectors
        (M, d); `EncodedLog.dataset(representations=...)` joins them to rows.

    Raises:
        UserError: There is no chain, this model was not fitted along it, the chain is of another
            log, or the folder holds something.

    Source: LFM4Ads (arXiv 2508.14948), extraction and aggregation of representations.

    Example:
        >>> import lfm4ads_tf as lfm
        >>> log = lfm.encode(lfm.load_spec("synthetic", {"dataset_options": {"rows": 2000}}))
        >>> upstream, chain = lfm.FoundationModel(log.layout), lfm.PeriodChain(log)
        >>> upstream.compile(lfm.HybridOptimizer())
        >>> history = upstream.fit(chain.dataset(), callbacks=[chain], verbose=0)
        >>> stored = lfm.extract(upstream, log, chain)
        >>> "CR_user@cross_3" in stored.dims
        True
    """
    load: Callable[[int | None], None]
    if config.snapshots == "single" or config.mode == "static":
        load = _as_it_is
    elif chain is None:
        raise UserError(
            "Representations of training rows need the weights that each period began by.",
            received="extract(upstream, log) without a chain",
            fix="chain = PeriodChain(log); upstream.fit(chain.dataset(), callbacks=[chain]); "
            "extract(upstream, log, chain)",
        )
    else:
        chain.require(upstream, log)
        load = chain.loader(upstream)
    with new_folder(folder, "the representations", "RepresentationStore(folder)") as target:
        with _weights_kept(upstream, log), staged_folder(target.path) as staging:
            writer = RepresentationWriter(staging)
            extract_periods(
                upstream,
                load,
                log.cache,
                config,
                writer,
                auxiliary=chain is None or chain.config.auxiliary_passes > 0,
                quiet=True,
            )
            writer.close(
                {
                    "version": uuid.uuid4().hex,
                    "data": log.fingerprint,
                    **config.model_dump(mode="json"),
                }
            )
        store = RepresentationStore(target.path)
    target.belongs_to(store)
    return store


def _as_it_is(period: int | None) -> None:
    """Loads nothing: all periods are represented by the weights that the model has."""


@contextmanager
def _weights_kept(upstream: UpstreamModel, log: EncodedLog) -> Iterator[None]:
    """Gives a model back the weights that it came with."""
    if not upstream.built:
        upstream(example_batch(log.layout))
    with tempfile.TemporaryDirectory(prefix="lfm4ads_tf_") as folder:
        write_weights(upstream, Path(folder) / "weights")
        try:
            yield
        finally:
            read_weights(upstream, Path(folder) / "weights")
