"""Rows of a log as they would be a period later: what a key's tower reads then."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lfm4ads_tf.data.splits import AUXILIARY, TRAIN


@dataclass(frozen=True)
class AheadRows:
    """Rows of which the moving features are wanted as of a later period than their own.

    Attributes:
        row: Rows, (M,) int64.
        period: The period as of which they are wanted, (M,) int32.
        daily: Whether valid and test events of earlier periods count too, (M,) bool.
    """

    row: np.ndarray
    period: np.ndarray
    daily: np.ndarray


def ahead_rows(
    user: np.ndarray, item: np.ndarray, period: np.ndarray, split: np.ndarray
) -> AheadRows:
    """The rows that stand for each key's features after each period.

    After a training period (the auxiliary rows being one), every user and item with an event in it
    is wanted as of the next training period; after the last one, every user and item with any
    training event. After a valid or test period, every user and item with an event in it is wanted
    as of the next period, in the daily state. A key's last event stands for it.

    Args:
        user, item: Key codes (N,), rows in time order.
        period: (N,) int.
        split: (N,), see `lfm4ads_tf.data.splits`.
    """
    trained = np.isin(split, (TRAIN, AUXILIARY))
    first = int(period[split == TRAIN].min())
    end = int(period[split == TRAIN].max()) + 1
    after = np.maximum(period + 1, np.where(trained, first, 0))
    pieces = []
    for daily in (False, True):
        rows = np.flatnonzero(trained != daily)
        for codes in (user, item):
            last = rows[_last(codes[rows] * (int(after.max()) + 1) + after[rows])]
            pieces.append((last, after[last], np.full(len(last), daily)))
            if not daily:
                last = rows[_last(codes[rows])]
                pieces.append((last, np.full(len(last), end), np.zeros(len(last), bool)))
    row, wanted, state = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    span = int(wanted.max(initial=0)) + 1
    _, kept = np.unique((row * span + wanted) * 2 + state, return_index=True)
    return AheadRows(row[kept].astype(np.int64), wanted[kept].astype(np.int32), state[kept])


def _last(codes: np.ndarray) -> np.ndarray:
    """Place of the last occurrence of every code."""
    _, reverse = np.unique(codes[::-1], return_index=True)
    return len(codes) - 1 - reverse
