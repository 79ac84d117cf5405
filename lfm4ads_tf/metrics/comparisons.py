"""Comparison of two methods over seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr

# Differences of two metrics carry rounding of a few units in the last place; a spread below
# this many of them is no spread.
_ROUNDING_UNITS = 8.0


@dataclass(frozen=True)
class PairedComparison:
    """Differences method - baseline, paired by seed.

    Attributes:
        diff_mean: Mean difference; None without a pair.
        diff_sd: Sample standard deviation of the differences; None below two pairs.
        p: Two-sided p-value of the paired t-test; None below two pairs.
        seeds: Number of pairs.
    """

    diff_mean: float | None
    diff_sd: float | None
    p: float | None
    seeds: int


def paired_comparison(
    method: Mapping[int, float | None], baseline: Mapping[int, float | None]
) -> PairedComparison:
    """Compares a metric of two methods over the seeds that both have, by a paired t-test.

    `t = mean(d) / (sd(d) / sqrt(n))` with n - 1 degrees of freedom. When all differences are
    equal the test has no spread to go by: p is 1 for differences of zero, else 0.

    Args:
        method: Seed -> value; None or NaN (undefined) drops the pair.
        baseline: Seed -> value, likewise.

    Returns:
        Mean and deviation of the differences, the p-value and the number of pairs.
    """
    pairs = np.array(
        [
            (value, other)
            for seed, value in sorted(method.items())
            if value is not None and (other := baseline.get(seed)) is not None
        ],
        dtype=np.float64,
    ).reshape(-1, 2)  # (S, 2)
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    count = len(pairs)
    if not count:
        return PairedComparison(None, None, None, 0)
    diffs = pairs[:, 0] - pairs[:, 1]
    mean = float(diffs.mean())
    if count == 1:
        return PairedComparison(mean, None, None, 1)
    sd = float(diffs.std(ddof=1))
    rounding = _ROUNDING_UNITS * np.finfo(np.float64).eps * float(np.abs(pairs).max())
    if sd <= rounding:
        return PairedComparison(mean, sd, 1.0 if abs(mean) <= rounding else 0.0, count)
    t = abs(mean) / (sd / np.sqrt(count))
    return PairedComparison(mean, sd, float(2.0 * stdtr(count - 1, -t)), count)
