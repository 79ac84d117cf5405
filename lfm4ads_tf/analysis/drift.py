"""How far the distribution of a feature in logged rows is from the one in training.

Three measures, each of the rows that the others leave: the *missing rate*; of the rows with a
value the *out-of-vocabulary rate*; of the rest the *L-infinity distance* of the distributions,
the largest change of the share of one value (the distribution skew of Breck et al., "Data
Validation for Machine Learning", MLSys 2019). So a change of the missing rate is told once.

Two samples of one distribution differ too. With n logged and m training rows, `allowance` bounds
what sampling adds to a measure but for the probability delta, whatever the distributions are:

    rates: sqrt((1/n + 1/m) ln(2 / delta) / 2)
    L-inf: sqrt(1/n + 1/m) min(sqrt(ln(2 V / delta) / 2), 1 + sqrt(ln(1 / delta) / 2))

The first, and the left side of the minimum for each of V possible values, is Hoeffding's
inequality. The right side does not grow with V: replacing one row moves the distance by at most
1/n (or 1/m), so by McDiarmid's inequality it exceeds its mean by t with probability at most
exp(-2 t^2 / (1/n + 1/m)), and the mean of the sampling part is at most that of its L2 norm,
sqrt(1/n + 1/m). By the triangle inequality all this holds around any true distance, not around 0
alone. Deciles are taken from every other training row and counted in the rest, so that they are
fixed values for both samples. Rows are taken as independent: a log of few users varies more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

DriftKind = Literal["linf", "missing", "oov"]
DECILES = np.arange(1, 10) / 10


@dataclass(frozen=True)
class Worst:
    """The value whose share changed most.

    Attributes:
        value: Logical id; None for a number.
        component: Column of a vector or statistic.
        low, high: Open interval of an encoded number; equal ends are that number.
        training, logged: Its shares.
    """

    training: float
    logged: float
    value: int | None = None
    component: int = 0
    low: float = 0.0
    high: float = 0.0


@dataclass(frozen=True)
class Measure:
    """One measure of one feature.

    Attributes:
        kind: Which one.
        distance: For `linf` in [0, 1]; for a rate logged - training; None without rows.
        rows, train_rows: Rows that it is made of.
        worst: For `linf`, the value; for a rate, the two rates.
        values: For `linf`, number of values that are possible, V.
    """

    kind: DriftKind
    distance: float | None
    rows: int
    train_rows: int
    worst: Worst
    values: int = 1

    def allowance(self, delta: float) -> float:
        """What sampling may add to the distance, but for the probability `delta`."""
        if not self.rows or not self.train_rows:
            return 1.0
        both = 1 / self.rows + 1 / self.train_rows
        factor = math.sqrt(math.log(2 * self.values / delta) / 2)
        if self.kind == "linf":
            factor = min(factor, 1 + math.sqrt(math.log(1 / delta) / 2))
        return factor * math.sqrt(both)

    def exceeds(self, limit: float, delta: float) -> bool:
        """Whether the distance is above the limit by more than sampling explains.

        A missing rate counts in both directions, an out-of-vocabulary rate when it rises.
        """
        if self.distance is None:
            return False
        distance = abs(self.distance) if self.kind == "missing" else self.distance
        return distance > limit + self.allowance(delta)


def id_measures(
    training: np.ndarray, logged: np.ndarray, *, table_rows: int, vocabulary: bool
) -> list[Measure]:
    """Measures of a feature with one id per row.

    Args:
        training: Ids of training rows, (M,) integer; -1 is missing.
        logged: Ids of logged rows, (N,), likewise.
        table_rows: Number of ids.
        vocabulary: Whether id 0 is out of vocabulary.
    """
    sides = [values[values >= 0] for values in (training, logged)]
    found = [_rates("missing", training < 0, logged < 0)]
    if vocabulary:
        found.append(_rates("oov", sides[0] == 0, sides[1] == 0))
        sides = [values[values > 0] for values in sides]
    ids = [np.unique(values, return_counts=True) for values in sides]
    shares = [(values, counts / max(1, counts.sum())) for values, counts in ids]
    rows = len(sides[0]), len(sides[1])
    return [*found, _farthest(shares, rows, table_rows)]


def bag_measures(
    training: tuple[np.ndarray, np.ndarray],
    logged: tuple[np.ndarray, np.ndarray],
    *,
    table_rows: int,
    vocabulary: bool,
) -> list[Measure]:
    """Measures of a feature with several ids per row; every row with a value weighs the same.

    An empty list is missing; the out-of-vocabulary rate is the mean of the rows' own rates.

    Args:
        training: Flat ids (V,) and row splits (M + 1,) of training rows.
        logged: Those of logged rows, (N + 1,) splits.
        table_rows: Number of ids.
        vocabulary: Whether id 0 is out of vocabulary.
    """
    sides = [training, logged]
    lengths = [np.diff(splits) for _, splits in sides]
    found = [_rates("missing", lengths[0] == 0, lengths[1] == 0)]
    if vocabulary:
        unseen = [_mean_per_row(values == 0, splits) for values, splits in sides]
        found.append(_rates("oov", unseen[0], unseen[1]))
        sides = [_without_zeros(values, splits) for values, splits in sides]
    rows = [int(np.count_nonzero(np.diff(splits))) for _, splits in sides]
    shares = [_row_shares(values, splits) for values, splits in sides]
    return [*found, _farthest(shares, (rows[0], rows[1]), table_rows)]


def number_measures(training: np.ndarray, logged: np.ndarray) -> list[Measure]:
    """Measures of a dense feature; numbers are counted by the training deciles.

    The encoded value 0 stands for missing. Where several deciles are one number, that number is
    a class of its own.

    Args:
        training: Encoded numbers of training rows, (M, W).
        logged: Those of logged rows, (N, W).
    """
    sides = [(training != 0).any(axis=1), (logged != 0).any(axis=1)]
    missing = _rates("missing", ~sides[0], ~sides[1])
    ours, theirs = training[sides[0]], logged[sides[1]]
    cuts, ours = ours[::2], ours[1::2]
    classes = (2 * len(DECILES) + 1) * training.shape[1]
    if not len(ours) or not len(theirs):
        none = Measure("linf", None, len(theirs), len(ours), Worst(0.0, 0.0), classes)
        return [missing, none]
    found = [
        _farthest_decile(cuts[:, k], ours[:, k], theirs[:, k], k) for k in range(training.shape[1])
    ]
    worst = max(found, key=lambda w: abs(w.logged - w.training))
    distance = abs(worst.logged - worst.training)
    return [missing, Measure("linf", distance, len(theirs), len(ours), worst, classes)]


def _rates(kind: DriftKind, training: np.ndarray, logged: np.ndarray) -> Measure:
    """Measure of two rates, each the mean of its rows' shares in [0, 1]."""
    rates = [float(side.mean()) if len(side) else 0.0 for side in (training, logged)]
    distance = rates[1] - rates[0] if len(training) and len(logged) else None
    return Measure(kind, distance, len(logged), len(training), Worst(rates[0], rates[1]))


def _farthest(
    sides: Sequence[tuple[np.ndarray, np.ndarray]], rows: tuple[int, int], table_rows: int
) -> Measure:
    """The id whose share differs most.

    Args:
        sides: Ascending ids and their shares, of training and logged rows.
        rows: Numbers of rows with an id.
        table_rows: Number of possible ids.
    """
    values = max(1, table_rows)
    if not rows[0] or not rows[1]:
        return Measure("linf", None, rows[1], rows[0], Worst(0.0, 0.0), values)
    ids = np.union1d(sides[0][0], sides[1][0])
    shares = np.zeros((2, len(ids)))
    for side, (own, of) in enumerate(sides):
        shares[side, np.searchsorted(ids, own)] = of
    at = int(np.argmax(np.abs(shares[1] - shares[0])))
    worst = Worst(float(shares[0, at]), float(shares[1, at]), value=int(ids[at]))
    distance = abs(worst.logged - worst.training)
    return Measure("linf", distance, rows[1], rows[0], worst, values)


def _farthest_decile(
    cuts: np.ndarray, training: np.ndarray, logged: np.ndarray, component: int
) -> Worst:
    """The interval between deciles of `cuts`, or the decile itself, whose share differs most."""
    edges = np.unique(np.quantile(cuts, DECILES, method="inverted_cdf"))

    def shares(values: np.ndarray) -> np.ndarray:
        # even classes lie between two edges, odd ones are an edge itself
        classes = np.searchsorted(edges, values, "left") + np.searchsorted(edges, values, "right")
        return np.bincount(classes, minlength=2 * len(edges) + 1) / len(values)

    p, q = shares(training), shares(logged)
    at = int(np.argmax(np.abs(q - p)))
    ends = [-np.inf, *edges.tolist(), np.inf]
    low = ends[(at + 1) // 2]
    high = low if at % 2 else ends[at // 2 + 1]
    return Worst(float(p[at]), float(q[at]), component=component, low=low, high=high)


def _mean_per_row(values: np.ndarray, splits: np.ndarray) -> np.ndarray:
    """Mean of the values of every list that is not empty."""
    lengths = np.diff(splits)
    row = np.repeat(np.arange(len(lengths)), lengths)  # (V,)
    sums = np.bincount(row, weights=values.astype(np.float64), minlength=len(lengths))
    means: np.ndarray = sums[lengths > 0] / lengths[lengths > 0]
    return means


def _without_zeros(values: np.ndarray, splits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lists without their zeros."""
    kept = np.concatenate([[0], np.cumsum(values != 0)])
    return values[values != 0], kept[splits]


def _row_shares(values: np.ndarray, splits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ascending ids and their mean share of a list, over the lists that are not empty."""
    lengths = np.diff(splits)
    weights = np.repeat(1.0 / np.maximum(lengths, 1), lengths)  # (V,)
    ids, inverse = np.unique(values, return_inverse=True)
    sums = np.bincount(inverse, weights=weights, minlength=len(ids))
    return ids, sums / max(1, int(np.count_nonzero(lengths)))
