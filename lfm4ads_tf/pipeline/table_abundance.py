"""Information abundance of a trained model's embedding tables."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.embeddings.id_embeddings import id_embeddings
from lfm4ads_tf.embeddings.table import ShardedEmbedding
from lfm4ads_tf.metrics import set_abundances

_AT_ONCE = 8192  # rows of the log


def table_abundances(
    embeddings: Sequence[ShardedEmbedding], cache: EncodedCache, rows: np.ndarray
) -> list[dict[str, Any]]:
    """Information abundance of every table over the ids that some rows of the log hold.

    An id that no row holds still has its initial value, which spreads in all directions and would
    hide a collapse. The missing id counts as one where a single-valued feature lacks a value.

    Args:
        embeddings: Layers of a model; a feature has the name of the log's field that it reads.
        cache: The log.
        rows: Rows that the model was trained on, (M,) in order.

    Returns:
        One entry per table that a field of the log reads: `layer` and `table`; `fields`; `rows`,
        the ids seen; `width` of one set; `sets`, the abundance of each, at most min(rows, width);
        `joined`, that of all sets side by side. See `information_abundance`; None is undefined.
    """
    seen = _seen_ids(embeddings, cache, rows)
    entries = []
    for layer in embeddings:
        for name, config in layer.layout.tables.items():
            if (layer.name, name) not in seen:
                continue
            chosen = seen[layer.name, name]
            blocks = partial(id_embeddings, layer, name, chosen)
            per_set, joined = set_abundances(blocks, layer.sets, config.dim)
            known = {field.name for field in cache.layout.fields}
            entries.append(
                {
                    "layer": layer.name,
                    "table": name,
                    "fields": [
                        f.name for f in layer.layout.features if f.table == name and f.name in known
                    ],
                    "rows": int(chosen.sum()),
                    "width": config.dim,
                    "sets": per_set,
                    "joined": joined,
                }
            )
    return entries


def _seen_ids(
    embeddings: Sequence[ShardedEmbedding], cache: EncodedCache, rows: np.ndarray
) -> dict[tuple[str, str], np.ndarray]:
    """(layer, table) -> which ids some rows hold, (ids + 1,) bool with the missing id last."""
    columns = {field.name: k for k, field in enumerate(cache.layout.single)}
    bags = {field.name for field in cache.layout.bags}
    seen: dict[tuple[str, str], np.ndarray] = {}
    readers: list[tuple[str, np.ndarray]] = []
    for layer in embeddings:
        for feature in layer.layout.features:
            if feature.name in columns or feature.name in bags:
                ids = layer.layout.table(feature.table).rows
                mask = seen.setdefault((layer.name, feature.table), np.zeros(ids + 1, bool))
                readers.append((feature.name, mask))
    for start in range(0, len(rows), _AT_ONCE):
        batch = cache.take(rows[start : start + _AT_ONCE])
        for name, mask in readers:
            if name in columns:
                mask[batch["ids"][:, columns[name]]] = True  # -1, missing, is the last one
            else:
                values = batch["bags"][name].values
                mask[values[values >= 0]] = True  # a missing id in a bag is not read
    return seen
