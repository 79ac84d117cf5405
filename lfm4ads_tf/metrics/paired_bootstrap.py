"""Differences of mean AUCs to a baseline, with what the choice of users leaves open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from lfm4ads_tf.metrics.auc import auc
from lfm4ads_tf.metrics.bootstrap import RESAMPLES, Interval

_GROUPS = 2048
_COUNTS_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class Scored:
    """Rows of one scenario with the scores of several methods.

    Attributes:
        labels: (B,) 0, 1 or NaN; rows with NaN are left out.
        users: (B,) integer user codes, the same in all scenarios.
        scores: Method -> (S, B) scores, one row per seed; all methods have the same seeds.
    """

    labels: ArrayLike
    users: ArrayLike
    scores: Mapping[str, np.ndarray]


def paired_bootstrap(
    parts: Sequence[Scored],
    baseline: str,
    *,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """`A(method) - A(baseline)` of every other method, with a paired percentile interval.

        A(m) = sum_g n_g mean_s AUC_{m,s,g} / sum_g n_g

    over scenarios g with n_g labelled rows and seeds s. Users are drawn with replacement from
    those of all scenarios, with all of their rows, the same for every method and seed. A scenario
    that holds one class, or in a resample one class, is left out there. In a resample, scores with
    more than 2048 distinct values are taken in that many groups of neighbours, as if those of a
    group were tied, and the groups' own AUC is corrected to the exact one.

    Args:
        parts: One per scenario.
        baseline: The method that the others are compared with.
        resamples: Resamples.
        level: Share of the resamples inside the interval.
        seed: Seed of the draws.

    Returns:
        Method -> interval; empty where the rows, or half of the resamples, hold one class.
    """
    known = [np.isfinite(np.asarray(part.labels, np.float64)) for part in parts]
    users = [np.asarray(p.users)[k] for p, k in zip(parts, known, strict=True)]
    labels = [np.asarray(p.labels)[k] for p, k in zip(parts, known, strict=True)]
    both = [g for g, of in enumerate(labels) if (of == 1).any() and (of == 0).any()]
    if not both:
        return {}
    names = list(parts[0].scores)
    people = np.unique(np.concatenate([users[g] for g in both]))
    binned = []
    whole = np.zeros(len(names))
    for g in both:
        exact = {n: [auc(labels[g], s[known[g]]) or 0.0 for s in parts[g].scores[n]] for n in names}
        scores = {n: [s[known[g]] for s in parts[g].scores[n]] for n in names}
        code = np.searchsorted(people, users[g])
        binned.append(_Binned(labels[g] == 1, code, len(people), scores, exact))
        whole += len(labels[g]) * np.array([np.mean(exact[n]) for n in names])
    whole /= sum(len(labels[g]) for g in both)
    draw = np.random.default_rng(seed)
    drawn = []
    at_once = max(1, min(resamples, _COUNTS_AT_ONCE // len(people)))
    for start in range(0, resamples, at_once):
        times = np.stack(
            [
                np.bincount(draw.integers(0, len(people), len(people)), minlength=len(people))
                for _ in range(min(at_once, resamples - start))
            ]
        ).astype(np.float64)
        drawn.append(_means(binned, times))
    values = np.concatenate(drawn)  # (R, methods)
    values = values[np.isfinite(values).all(axis=1)]
    if len(values) < resamples / 2:
        return {}
    at = names.index(baseline)
    tail = (1.0 - level) / 2
    intervals = {}
    for k, name in enumerate(names):
        if name != baseline:
            low, high = np.quantile(values[:, k] - values[:, at], [tail, 1.0 - tail])
            intervals[name] = Interval(float(whole[k] - whole[at]), float(low), float(high))
    return intervals


class _Binned:
    """The labelled rows of one scenario, counted by user and group of scores.

    Args:
        positive: Whether a row is a positive, (M,).
        code: Code of the row's user, (M,).
        people: Number of users.
        scores: Method -> scores (M,) by seed.
        exact: Method -> AUC by seed.
    """

    def __init__(
        self,
        positive: np.ndarray,
        code: np.ndarray,
        people: int,
        scores: Mapping[str, Sequence[np.ndarray]],
        exact: Mapping[str, Sequence[float]],
    ) -> None:
        self.rows = len(positive)
        self._positive = np.bincount(code[positive], minlength=people).astype(np.float64)
        self._negative = np.bincount(code[~positive], minlength=people).astype(np.float64)
        self._tables: list[list[tuple[sparse.csr_matrix, sparse.csr_matrix, float]]] = []
        for name, seeds in scores.items():
            tables = []
            for score, value in zip(seeds, exact[name], strict=True):
                group = _groups(score)
                shape = (int(group.max()) + 1, people)
                up, down = (
                    sparse.csr_matrix((np.ones(of.sum()), (group[of], code[of])), shape)
                    for of in (positive, ~positive)
                )
                alone = _auc(up @ np.ones((people, 1)), down @ np.ones((people, 1)))
                tables.append((up, down, value - float(alone[0])))
            self._tables.append(tables)

    def aucs(self, times: np.ndarray) -> np.ndarray:
        """Mean AUC over seeds of every method, (R, methods); NaN where one class was drawn.

        Args:
            times: How often each user was drawn, (R, people).
        """
        drawn = times.T
        found = [
            np.mean([_auc(up @ drawn, down @ drawn) + shift for up, down, shift in seeds], axis=0)
            for seeds in self._tables
        ]
        both = (times @ self._positive > 0) & (times @ self._negative > 0)
        return np.where(both[:, np.newaxis], np.stack(found, axis=1), np.nan)


def _groups(score: np.ndarray) -> np.ndarray:
    """Group of each row, ascending with the score: its value, or of neighbouring values."""
    distinct, group = np.unique(score, return_inverse=True)
    if len(distinct) <= _GROUPS:
        return group
    # Equal scores stay together: a group is that of the value's first place in the order.
    first = np.cumsum(np.bincount(group)) - np.bincount(group)
    _, merged = np.unique(first * _GROUPS // len(score), return_inverse=True)
    return np.asarray(merged[group])


def _auc(up: np.ndarray, down: np.ndarray) -> np.ndarray:
    """AUC (R,) from positives and negatives by ascending group, (groups, R) each."""
    before = np.cumsum(down, axis=0)
    pairs = up.sum(axis=0) * before[-1]
    above = np.einsum("gr,gr->r", up, before) - 0.5 * np.einsum("gr,gr->r", up, down)
    return np.asarray(above / np.where(pairs > 0, pairs, 1.0))


def _means(parts: Sequence[_Binned], times: np.ndarray) -> np.ndarray:
    """A of every method (R, methods); NaN where no scenario has both classes."""
    rows = np.array([part.rows for part in parts], np.float64)[:, np.newaxis, np.newaxis]
    values = np.stack([part.aucs(times) for part in parts])  # (G, R, methods)
    held = np.isfinite(values)
    total = (rows * held).sum(axis=0)
    mean = np.where(held, rows * values, 0.0).sum(axis=0) / np.where(total > 0, total, 1.0)
    return np.where(total > 0, mean, np.nan)
