"""Recall of retrieved item lists."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lfm4ads_tf.errors import UserError


def recall_at_k(
    retrieved: ArrayLike,
    relevant: ArrayLike | Sequence[ArrayLike],
    splits: ArrayLike | None = None,
) -> float | None:
    """Mean over users of the share of their relevant items that was retrieved.

    `mean_u |retrieved_u ∩ relevant_u| / |relevant_u|` over the users with a relevant item;
    repeated items count once on either side.

    Args:
        retrieved: (U, k) item ids; a short list is filled with an id that no item has, like -1.
        relevant: Item ids per user: a sequence of U vectors, or with `splits` one vector (N,).
        splits: (U + 1,) user u's items are `relevant[splits[u]:splits[u + 1]]`.

    Returns:
        A value in [0, 1], or None when no user has a relevant item.

    Raises:
        UserError: for shapes that do not fit or ids that are not integers.
    """
    items_of_users = np.asarray(retrieved)
    if items_of_users.ndim != 2 or not np.issubdtype(items_of_users.dtype, np.integer):
        raise UserError(
            "Retrieved items must be an integer array of shape (users, k).",
            received=f"{items_of_users.dtype} {items_of_users.shape}",
        )
    users = items_of_users.shape[0]
    ids, counts = _ragged(relevant, splits, users)
    if not ids.size:
        return None

    # An item's code is its place among the relevant items; user and code make one sortable key.
    items, code = np.unique(ids, return_inverse=True)
    wanted = np.unique(np.repeat(np.arange(users), counts) * items.size + code)
    place = np.minimum(np.searchsorted(items, items_of_users), items.size - 1)  # (U, k)
    user, column = np.nonzero(items[place] == items_of_users)
    got = np.unique(user * items.size + place[user, column])
    hits = np.bincount(
        np.intersect1d(wanted, got, assume_unique=True) // items.size, minlength=users
    )
    total = np.bincount(wanted // items.size, minlength=users)
    has = total > 0
    return float((hits[has] / total[has]).mean())


def _ragged(
    relevant: ArrayLike | Sequence[ArrayLike], splits: ArrayLike | None, users: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns flat item ids (N,) and how many of them each user has (U,)."""
    if splits is None:
        lists = [np.asarray(one) for one in relevant]  # type: ignore[union-attr]
        counts = np.array([one.size for one in lists], dtype=np.int64)
        ids = np.concatenate([np.zeros(0, np.int64), *(one for one in lists if one.size)])
        fits = counts.size == users
    else:
        ids, offsets = np.asarray(relevant), np.asarray(splits, dtype=np.int64)
        counts = np.diff(offsets)
        fits = offsets.shape == (users + 1,) and offsets[0] == 0 and offsets[-1] == ids.size
        fits = bool(fits and (counts >= 0).all())
    if not fits:
        raise UserError(
            "Relevant items must be given for each user that has retrieved items.",
            received=f"{counts.size} lists with {ids.size} items for {users} users",
            fix="pass one vector per user, or flat ids with row splits from 0 to their number",
        )
    if ids.ndim != 1 or (ids.size and not np.issubdtype(ids.dtype, np.integer)):
        raise UserError("Relevant item ids must be integers.", received=f"{ids.dtype} {ids.shape}")
    return ids.astype(np.int64), counts
