"""Differences of mean AUCs to a baseline, with what the choice of users leaves open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lfm4ads_tf.metrics._inputs import labelled_rows, tie_starts
from lfm4ads_tf.metrics.bootstrap import RESAMPLES, Interval


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
    that holds one class, or in a resample one class, is left out there.

    Args:
        parts: One per scenario.
        baseline: The method that the others are compared with.
        resamples: Resamples.
        level: Share of the resamples inside the interval.
        seed: Seed of the draws.

    Returns:
        Method -> interval; empty where the rows, or half of the resamples, hold one class.
    """
    kept = [_Ranked.of(part) for part in parts]
    ranked = [part for part in kept if part.positive.any() and not part.positive.all()]
    if not ranked:
        return {}
    people = np.unique(np.concatenate([part.users for part in ranked]))
    places = [np.searchsorted(people, part.users) for part in ranked]
    whole = _means(ranked, [np.ones(len(place)) for place in places])
    draw = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        times = np.bincount(draw.integers(0, len(people), len(people)), minlength=len(people))
        found = _means(ranked, [times[place].astype(np.float64) for place in places])
        if found is not None:
            drawn.append(found)
    if whole is None or len(drawn) < resamples / 2:
        return {}
    names = list(ranked[0].orders)
    at = names.index(baseline)
    values = np.array(drawn)  # (R, methods)
    tail = (1.0 - level) / 2
    intervals = {}
    for k, name in enumerate(names):
        if name != baseline:
            low, high = np.quantile(values[:, k] - values[:, at], [tail, 1.0 - tail])
            intervals[name] = Interval(float(whole[k] - whole[at]), float(low), float(high))
    return intervals


@dataclass(frozen=True)
class _Ranked:
    """The labelled rows of one scenario: their order by each score, and where ties start."""

    positive: np.ndarray
    users: np.ndarray
    orders: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]]

    @classmethod
    def of(cls, part: Scored) -> _Ranked:
        labels = np.asarray(part.labels)
        known = np.isfinite(labels)
        orders = {}
        for name, seeds in part.scores.items():
            orders[name] = [_order(labels, score) for score in seeds]
        return cls(labels[known] == 1, np.asarray(part.users)[known], orders)


def _order(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    _, value, _ = labelled_rows(labels, scores)
    order = np.argsort(value, kind="stable")
    return order, tie_starts(value[order]) if len(value) else order


def _means(parts: Sequence[_Ranked], weights: Sequence[np.ndarray]) -> np.ndarray | None:
    """A of every method (methods,) for weighted rows; None where no scenario has both classes."""
    total, rows = np.zeros(len(parts[0].orders)), 0
    for part, weight in zip(parts, weights, strict=True):
        if not weight[part.positive].any() or not weight[~part.positive].any():
            continue
        up, down = np.where(part.positive, weight, 0.0), np.where(part.positive, 0.0, weight)
        means = [
            np.mean([_auc(up[order], down[order], starts) for order, starts in seeds])
            for seeds in part.orders.values()
        ]
        total += len(weight) * np.array(means)
        rows += len(weight)
    return total / rows if rows else None


def _auc(up: np.ndarray, down: np.ndarray, starts: np.ndarray) -> float:
    """AUC of rows in the order of their scores, from the weights of positives and negatives."""
    if len(starts) < len(up):
        up, down = np.add.reduceat(up, starts), np.add.reduceat(down, starts)
    before = np.cumsum(down)
    return float((up @ before - 0.5 * (up @ down)) / (up.sum() * before[-1]))
