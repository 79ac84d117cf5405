"""Tells which scenarios have fewer rows in a batch than they are weighed as having."""

from __future__ import annotations

import logging

import numpy as np

from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.data.splits import AUXILIARY, TRAIN
from lfm4ads_tf.models.upstream_config import UpstreamConfig
from lfm4ads_tf.pipeline.scenario_rows import scenario_rows

_LOG = logging.getLogger(__name__)
_SHOWN = 10


def warn_small_scenarios(cache: EncodedCache, upstream: UpstreamConfig, label: str) -> None:
    """Warns in one line of all scenarios below the model's `least_rows`, see `UpstreamModel`.

    A scenario's expected rows in a batch are its share of the training rows times the batch size.

    Args:
        cache: The encoded data.
        upstream: The model and its training, whose batch size is settled.
        label: Whose training it is.
    """
    least = upstream.model_class.least_rows(upstream)
    if not least:
        return
    every = int(np.isin(cache.split, (TRAIN, AUXILIARY)).sum())
    batch = min(upstream.training.batch_size, every)
    rows = {name: count for name, count in scenario_rows(cache).items() if count}
    expected = {name: count * batch / every for name, count in rows.items()}
    small = [name for name, count in expected.items() if count < least]
    if small:
        more = f" and {len(small) - _SHOWN} more" if len(small) > _SHOWN else ""
        _LOG.warning(
            "%s: %d of %d scenarios have fewer rows in a batch of %s on average than "
            "upstream.%s.least_rows: %d, and weigh as if they had so many: %s%s",
            label,
            len(small),
            len(rows),
            f"{batch:,}",
            upstream.model,
            least,
            ", ".join(f"'{name}' ({expected[name]:.3g} rows)" for name in small[:_SHOWN]),
            more,
        )
