"""The small model of a scenario with a transfer method, by the method's name."""

from __future__ import annotations

import logging

from lfm4ads_tf.config import DownstreamConfig, RunConfig
from lfm4ads_tf.errors import UserError, nearest
from lfm4ads_tf.front.encoded_log import EncodedLog
from lfm4ads_tf.models.spec_reads import layout_reads
from lfm4ads_tf.models.upstream import UpstreamModel
from lfm4ads_tf.pipeline import build
from lfm4ads_tf.pipeline.initial_weights import scenario_shares
from lfm4ads_tf.pipeline.named_method import configured_method
from lfm4ads_tf.representations.config import RepresentationsConfig
from lfm4ads_tf.representations.store import RepresentationStore
from lfm4ads_tf.transfer.downstream import DownstreamModel
from lfm4ads_tf.transfer.warm_start import start

_LOG = logging.getLogger(__name__)


def build_downstream(
    method: str,
    upstream: UpstreamModel,
    log: EncodedLog,
    scenario: str,
    *,
    representations: RepresentationStore | None = None,
    config: DownstreamConfig | None = None,
    seed: int = 0,
) -> DownstreamModel:
    """A downstream model with a transfer from an upstream, at the weights it starts from.

    Args:
        method: As results name it: `none`; `feature/<adapter>/<representations joined by +>`, such
            as `feature/gate/UR+CR_user@cross_3`; `module/warm_start/<layer>`, which copies tables
            and layers; `module/isomorphic`; several joined by ` & `; or `full`.
        upstream: The trained upstream.
        log: The encoded log.
        scenario: The scenario or segment that it is for: a warm start copies its heads.
        representations: What `extract` stored; needed where the method reads some.
        config: Sizes, adapters' options, features that are not read; the upstream's towers, block
            and tables when absent.
        seed: Seed of the weights that are not copied.

    Returns:
        The model, to be compiled and fitted on `log.dataset("train", scenario=scenario,
        representations=representations, sources=model.sources)`. It gives logits (B, T).

    Raises:
        UserError: The method or scenario is unknown, the method does not fit the upstream, or it
            reads representations and none are given.

    Source: LFM4Ads (arXiv 2508.14948), feature and module level.

    Example:
        >>> import lfm4ads_tf as lfm
        >>> log = lfm.encode(lfm.load_spec("synthetic", {"dataset_options": {"rows": 2000}}))
        >>> upstream = lfm.FoundationModel(log.layout)
        >>> ranker = lfm.build_downstream("module/warm_start/cross_1", upstream, log, "feed")
        >>> ranker.sources
        []
    """
    known = [*log.layout.scenarios, *log.layout.segments]
    if scenario not in known:
        raise UserError(
            f"There is no scenario '{scenario}'.{nearest(scenario, known)}",
            fix=f"use one of {', '.join(known)}",
        )
    stored = RepresentationsConfig()
    if representations is not None:
        fields = RepresentationsConfig.model_fields
        settings = {k: v for k, v in representations.manifest.items() if k in fields}
        stored = RepresentationsConfig.model_validate(settings)
        log.require(representations)
    theirs = upstream.configuration()
    if config is None:
        config = DownstreamConfig(network=theirs.network, embeddings=theirs.embeddings)
    run = RunConfig().model_copy(
        update={
            "upstream": theirs,
            "downstream": config,
            "representations": stored,
        }
    )
    parsed = configured_method(run, layout_reads(log.layout), method)
    if parsed.sources and representations is None:
        raise UserError(
            f"The method '{method}' reads stored representations.",
            received="build_downstream(...) without representations",
            fix="representations=extract(upstream, log, chain)",
        )
    dims = {} if representations is None else representations.dims
    model = build.downstream(log.layout, run, parsed, dims, seed)
    if parsed.copies and not upstream.fitted:
        _LOG.warning("'%s' copies weights of an upstream that was never fitted", method)
    if parsed.copies:
        if not upstream.built:
            upstream(build.example_batch(log.layout))
        shares = scenario_shares(log.cache, scenario)
        model.origin["group_rates"] = start(
            upstream, model, parsed, shares, config.warm_start_rates
        )
    model.origin["scenario"] = scenario
    if parsed.sources and representations is not None:
        model.origin["representations"] = representations.version
    return model
