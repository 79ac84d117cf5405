"""Tells which scenarios have fewer rows in a batch than they are weighed as having."""

from __future__ import annotations

import logging

import numpy as np

from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.models.upstream_config import UpstreamConfig

_LOG = logging.getLogger(__name__)
_SHOWN = 10


def warn_small_scenarios(cache: EncodedCache, upstream: UpstreamConfig, label: str) -> None:
    """Warns in one line of all scenarios below the model's `least_rows`, see `UpstreamModel`.

    A scenario's expected rows in a batch are its share of the rows times the batch size. Auxiliary
    rows have batches of their own, and none without `auxiliary_passes`; a scenario of both kinds of
    rows counts where it has more.

    Args:
        cache: The encoded data.
        upstream: The model and its training, whose batch size is settled.
        label: Whose training it is.
    """
    least, training = upstream.model_class.least_rows(upstream), upstream.training
    if not least:
        return
    kinds = [cache.train_rows, *([cache.auxiliary_rows] if training.auxiliary_passes else [])]
    names = cache.layout.scenarios
    highest = np.zeros(len(names))
    for rows in kinds:
        scenario = cache.scenario[rows]
        shares = np.bincount(scenario[scenario >= 0], minlength=len(names)) / max(len(rows), 1)
        highest = np.maximum(highest, shares * min(training.batch_size, len(rows)))
    expected = {name: count for name, count in zip(names, highest, strict=True) if count}
    small = [name for name, count in expected.items() if count < least]
    if small:
        more = f" and {len(small) - _SHOWN} more" if len(small) > _SHOWN else ""
        _LOG.warning(
            "%s: %d of %d scenarios have fewer rows in a batch of %s on average than "
            "upstream.%s.least_rows: %d, and weigh as if they had so many: %s%s",
            label,
            len(small),
            len(expected),
            f"{min(training.batch_size, max(map(len, kinds))):,}",
            upstream.model,
            least,
            ", ".join(f"'{name}' ({expected[name]:.3g} rows)" for name in small[:_SHOWN]),
            more,
        )
