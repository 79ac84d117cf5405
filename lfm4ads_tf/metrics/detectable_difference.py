"""The smallest difference that a paired test over few seeds can be expected to find."""

from __future__ import annotations

import numpy as np
from scipy import optimize, stats


def detectable_difference(
    deviation: float, pairs: int, *, level: float = 0.05, power: float = 0.8
) -> float | None:
    """The true difference that a two-sided paired t-test finds with a given chance.

    With n pairs of differences d ~ N(delta, sigma^2), t = mean(d) sqrt(n) / sd(d) is noncentral t
    with n - 1 degrees of freedom and noncentrality c = delta sqrt(n) / sigma. It is significant
    beyond q = t_{n-1, 1 - level / 2}, so

        P(|T_{n-1}(c)| > q) = power,  delta = c sigma / sqrt(n)

    Args:
        deviation: sigma, the standard deviation of a difference, not negative.
        pairs: n.
        level: Level of the test.
        power: Chance that it finds the difference, above the level.

    Returns:
        delta; None below two pairs.

    Source:
        Cohen, Statistical Power Analysis for the Behavioral Sciences, 1988 (power of the t-test).
    """
    if pairs < 2:
        return None
    freedom = pairs - 1
    bound = stats.t.ppf(1.0 - level / 2, freedom)

    def lacking(shift: float) -> float:
        # The far tail by symmetry; where it is below what can be computed, it is no number.
        far = np.nan_to_num(stats.nct.sf(bound, freedom, -shift))
        return float(stats.nct.sf(bound, freedom, shift) + far) - power

    highest = 1.0
    while lacking(highest) < 0.0:
        highest *= 2.0
    shift = optimize.brentq(lacking, 0.0, highest, xtol=1e-12)
    return float(shift * deviation / np.sqrt(pairs))
