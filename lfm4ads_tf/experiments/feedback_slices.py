"""Rows by which of two tasks their user tends to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.errors import UserError, nearest

_BOUND = math.log(2)
_SMOOTHING = 10.0


class FeedbackSlices:
    """Slices `comparable`, `<a>_dominated` and `<b>_dominated` of two tasks a and b.

        r_{u,a} = (P_{u,a} + c R_a) / (N_{u,a} + c)
        rho_u = logit r_{u,a} - logit r_{u,b} - (logit R_a - logit R_b)

    P and N are the positives and the known labels of user u among the training rows, R_a the rate
    of all of them, c = 10. Rows of a user with |rho| <= ln 2 are comparable: neither task's odds
    are more than twice the other's, measured by what is usual. Others are dominated by the task of
    the higher odds. Rows of users without a training row are in no slice.

    Args:
        cache: The encoded data.
        pair: The two tasks.

    Raises:
        UserError: They are not two of the tasks, or one has one class in training.

    Source: Su et al., STEM (AAAI 2024), divides samples by the relative amount of positive feedback
    among tasks; the definition is ours.
    """

    def __init__(self, cache: EncodedCache, pair: Sequence[str]) -> None:
        tasks = list(cache.layout.tasks)
        if len(pair) != 2 or pair[0] == pair[1]:
            raise UserError(
                "--feedback-pair needs two tasks.",
                received=",".join(pair),
                fix=f"name two of {', '.join(tasks)}",
            )
        for task in pair:
            if task not in tasks:
                raise UserError(
                    f"--feedback-pair names the unknown task '{task}'.{nearest(task, tasks)}",
                    received=",".join(pair),
                    fix=f"name two of {', '.join(tasks)}",
                )
        self._pair, self._user = pair, cache.user
        rows = cache.train_rows
        users = int(cache.user.max()) + 1
        self._known = np.bincount(cache.user[rows], minlength=users) > 0
        first, second = (
            _log_odds(cache.user[rows], cache.labels[rows, tasks.index(t)], users, t) for t in pair
        )
        self._rho = first - second  # (users,)

    def of(self, rows: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """Name and mask over `rows` of every slice."""
        user = self._user[rows]
        rho, known = self._rho[user], self._known[user]
        yield "comparable", known & (np.abs(rho) <= _BOUND)
        yield f"{self._pair[0]}_dominated", known & (rho > _BOUND)
        yield f"{self._pair[1]}_dominated", known & (rho < -_BOUND)


def _log_odds(user: np.ndarray, labels: np.ndarray, users: int, task: str) -> np.ndarray:
    """logit r_u - logit R of one task, (users,)."""
    known = np.isfinite(labels)
    positives = np.bincount(user[known], weights=labels[known], minlength=users)
    counts = np.bincount(user[known], minlength=users)
    rate = positives.sum() / max(counts.sum(), 1)
    if not 0 < rate < 1:
        raise UserError(
            f"The task '{task}' has one class in training, so users have no odds of it.",
            received=f"{int(positives.sum()):,} positives of {int(counts.sum()):,} labels",
            fix="name another task",
        )
    smoothed = (positives + _SMOOTHING * rate) / (counts + _SMOOTHING)
    # both classes weigh in every rate, but that of a user without a negative in rounding
    smoothed = np.clip(smoothed, 1e-12, 1 - 1e-12)
    return np.asarray(np.log(smoothed / (1 - smoothed)) - np.log(rate / (1 - rate)))
