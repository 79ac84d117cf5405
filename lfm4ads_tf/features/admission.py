"""What a training row could know of a vocabulary that grows in time order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lfm4ads_tf.features.layout import FeatureLayout
from lfm4ads_tf.features.vocabulary import Vocabulary

NOT_TRAINING = np.iinfo(np.int64).max
"""Ordinal of a row outside the training split, which knows the final vocabulary."""


def apply_admission(ids: np.ndarray, ordinals: np.ndarray, admitted_at: np.ndarray) -> np.ndarray:
    """Turns ids of the final vocabulary into what each training row could know.

        id' = 0 if id >= 1 and admitted_at[id - 1] > ordinal, else id

    Args:
        ids: Ids of the final vocabulary, (M,) integer; -1 is missing, 0 out of vocabulary. The
            values of a bag are passed flat, with their rows' ordinals repeated.
        ordinals: Training ordinal of each id's row, (M,). `NOT_TRAINING` for a row outside
            the training split.
        admitted_at: See `Vocabulary`, (V,).

    Returns:
        Ids of the same shape and type, (M,).
    """
    if not len(admitted_at):
        return ids.copy()
    early = (ids >= 1) & (admitted_at[np.maximum(ids, 1) - 1] > ordinals)
    return np.where(early, ids.dtype.type(0), ids)


def admit(
    encoded: dict[str, Any],
    layout: FeatureLayout,
    vocabularies: Mapping[str, Vocabulary],
    ordinals: np.ndarray,
) -> dict[str, Any]:
    """Applies the admission to every vocabulary feature of an encoded batch.

    Args:
        encoded: What `encode_columns` gave for R rows.
        layout: The encoder's layout.
        vocabularies: Table -> vocabulary, see `FittedEncoding`.
        ordinals: Training ordinal of each row, (R,) int64; `NOT_TRAINING` for the others.

    Returns:
        The same structure; what needs no change is not copied.
    """
    ids = encoded["ids"].copy()
    for i, field in enumerate(layout.single):
        if field.table in vocabularies:
            admitted_at = vocabularies[field.table].admitted_at
            ids[:, i] = apply_admission(ids[:, i], ordinals, admitted_at)
    bags = dict(encoded["bags"])
    for field in layout.bags:
        if field.table in vocabularies:
            values, splits, weights = bags[field.name]
            rows = np.repeat(ordinals, np.diff(splits))  # (M,)
            admitted_at = vocabularies[field.table].admitted_at
            bags[field.name] = (apply_admission(values, rows, admitted_at), splits, weights)
    return {**encoded, "ids": ids, "bags": bags}
