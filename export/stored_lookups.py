"""Stored representations for an export that looks them up itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from lfm4ads_tf.embeddings.config import ServedStorage
from lfm4ads_tf.export.representation_lookup import RepresentationLookup
from lfm4ads_tf.features.spec import Keys
from lfm4ads_tf.pipeline.predict import join_keys
from lfm4ads_tf.representations.names import is_item_side
from lfm4ads_tf.representations.store import RepresentationStore


def stored_lookups(
    names: Sequence[str],
    store: RepresentationStore,
    samples: pa.Table,
    keys: Keys,
    storage: ServedStorage,
) -> tuple[dict[str, RepresentationLookup], dict[str, np.ndarray]]:
    """Tables of one snapshot, and what offline code reads of it for the samples.

    Args:
        names: The representations.
        store: Where they are stored; each is read once.
        samples: Raw rows (B,) with both keys.
        keys: The spec's keys.
        storage: Type in which the vectors are kept.

    Returns:
        Name -> lookup, and name -> (B, d + 1) float32 at the end of training.

    Raises:
        UserError: See `RepresentationLookup`.
    """
    lookups, joined = {}, {}
    for name in names:
        stored, vectors = store.frozen(name)
        lookups[name] = RepresentationLookup(name, stored, vectors, storage)
        key = keys.item if is_item_side(name) else keys.user
        joined[name] = join_keys(stored, vectors, samples[key].combine_chunks())
    return lookups, joined
