"""The AUC of a model that knows the true probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.metrics._inputs import check_probabilities, tie_starts


def best_possible_auc(probabilities: ArrayLike) -> float | None:
    """Expected AUC of ranking rows by the true probability of their label.

    With independent labels `y_i ~ Bernoulli(p_i)` the expected counts of ordered pairs give
    `sum_{i != j} p_i (1 - p_j) ([p_i > p_j] + [p_i = p_j] / 2) / sum_{i != j} p_i (1 - p_j)`,
    in O(n log n). It is a ratio of expectations; the AUC of drawn labels scatters around it by
    about `1 / sqrt(positives)`, and no scoring rule has a higher expected count.

    Args:
        probabilities: (B,) true probabilities of a positive label.

    Returns:
        A value in [0.5, 1], or None when both classes cannot occur.

    Raises:
        UserError: for probabilities outside [0, 1].
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 1:
        raise UserError("Probabilities must be a vector.", received=p.shape)
    check_probabilities(p)
    if not p.size:
        return None
    p = np.sort(p)
    starts = tie_starts(p)
    up, down = np.add.reduceat(p, starts), np.add.reduceat(1.0 - p, starts)
    itself = float((p * (1.0 - p)).sum())  # the pairs i = j, which are not pairs
    pairs = float(p.sum() * (1.0 - p).sum()) - itself
    # One row, or only labels certain and alike: what is left of the difference is rounding.
    if pairs <= np.finfo(np.float64).eps * p.size * itself:
        return None
    below = np.cumsum(down) - down
    return float(((up * (below + 0.5 * down)).sum() - 0.5 * itself) / pairs)
