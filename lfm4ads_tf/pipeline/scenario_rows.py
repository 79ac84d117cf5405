"""How many rows of each scenario an upstream is trained on."""

from __future__ import annotations

import numpy as np

from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.data.splits import AUXILIARY, TRAIN


def scenario_rows(cache: EncodedCache) -> dict[str, int]:
    """Scenario -> its training rows, auxiliary ones among them; 0 where only later rows have it.

    Args:
        cache: The encoded data.
    """
    scenario = cache.scenario[np.isin(cache.split, (TRAIN, AUXILIARY))]
    names = cache.layout.scenarios
    counts = np.bincount(scenario[scenario >= 0], minlength=len(names))
    rows = {name: int(count) for name, count in zip(names, counts, strict=True)}
    return rows | dict.fromkeys(cache.unseen_scenarios, 0)
