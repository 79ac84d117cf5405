"""Area under the ROC curve per user."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.metrics._inputs import labelled_rows


def gauc(labels: ArrayLike, scores: ArrayLike, users: ArrayLike) -> float | None:
    """Mean of the users' own AUCs, weighted by their rows.

    `GAUC = sum_u n_u AUC_u / sum_u n_u` over the users whose labelled rows hold both classes;
    `n_u` counts a user's labelled rows.

    Args:
        labels: (B,) 0, 1 or NaN; rows with NaN are left out.
        scores: (B,) finite on labelled rows.
        users: (B,) user keys, integers or strings.

    Returns:
        A value in [0, 1], or None when no user has both classes.

    Raises:
        UserError: for inputs other than these.

    Source: Zhu et al., "Optimized Cost per Click in Taobao Display Advertising", KDD 2017.
    """
    positive, score, known = labelled_rows(labels, scores)
    user = np.asarray(users)
    if user.shape != known.shape:
        raise UserError(
            "Users must be a vector as long as the labels.",
            received=f"users {user.shape}, labels {known.shape}",
        )
    if not positive.size:
        return None
    _, user = np.unique(user[known], return_inverse=True)
    order = np.lexsort((score, user))
    positive, score, user = positive[order], score[order], user[order]

    new_user = np.r_[True, user[1:] != user[:-1]]
    tie = np.flatnonzero(np.r_[True, score[1:] != score[:-1]] | new_user)  # (T,)
    tie_user = user[tie]
    up = np.add.reduceat(positive.astype(np.float64), tie)
    down = np.add.reduceat((~positive).astype(np.float64), tie)

    first = np.flatnonzero(np.r_[True, tie_user[1:] != tie_user[:-1]])  # (U,)
    before = np.cumsum(down) - down
    below = before - before[first][tie_user]  # negatives of the same user with a lower score
    wins = np.add.reduceat(up * (below + 0.5 * down), first)
    ups, downs = np.add.reduceat(up, first), np.add.reduceat(down, first)
    both = (ups > 0) & (downs > 0)
    if not both.any():
        return None
    wins, ups, downs = wins[both], ups[both], downs[both]
    rows = ups + downs
    return float((rows * wins / (ups * downs)).sum() / rows.sum())
