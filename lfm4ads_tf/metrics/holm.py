"""Correction of p-values for the number of tests."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment: bounds the chance of any false finding among all tests.

    With the m known values in ascending order, `q_(k) = max_{j <= k} min(1, (m - j + 1) p_(j))`,
    j from 1. A test is significant at a level if its adjusted value is below it.

    Args:
        p_values: One per test; None (no test was possible) does not count.

    Returns:
        The adjusted values in the same order, None where the input is.

    Source:
        Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of
        Statistics 6 (1979).
    """
    known = sorted((p, k) for k, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for step, (p, k) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - step) * p))
        adjusted[k] = highest
    return adjusted
