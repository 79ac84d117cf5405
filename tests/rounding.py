"""How far two float32 computations of the same numbers may lie apart, from their arithmetic.

A float32 operation rounds its result by at most half of `EPSILON`, relative. A sum of n products
is therefore off by at most n * EPSILON / 2 * (|x_1 y_1| + ... + |x_n y_n|), to first order, in
whatever order a processor adds them up, in vectors of any length, and with or without fused
multiply-add (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1). Two ways to
compute it differ by at most twice that:

    |found - expected| <= n * EPSILON * (|x_1 y_1| + ... + |x_n y_n|)

The bound grows with the numbers, as the difference does: an absolute constant would be too wide
for small numbers, and too narrow for large ones on the next processor.

Layers that follow each other add up: `terms` is the length of the longest chain of additions from
an input to the output, so about the sum of the widths that are summed over.

Where a test has no sum of magnitudes at hand, the largest value of the compared array stands for
it; the array must have some dozens of elements, for a few may all be sums that cancel. The
elements of one array are sums of n terms of like size and both signs, so about sqrt(n) times a
term; their roundings have both signs too and add up in the same way, to about sqrt(n / 2) times
EPSILON / 2 of such an element. With a factor of about ten for the unlucky ones among many
elements (Higham and Mary 2019, A New Approach to Probabilistic Rounding Error Analysis):

    |found - expected| <= 4 * sqrt(n) * EPSILON * max |expected|
"""

from __future__ import annotations

from typing import Any

import numpy as np

EPSILON = float(np.finfo(np.float32).eps)
"""Distance of 1 from the next float32."""


def room(terms: float, magnitude: Any) -> Any:
    """Largest difference of two float32 computations: terms * EPSILON * magnitude.

    Args:
        terms: Length of the longest chain of additions, n.
        magnitude: Sum of the terms' magnitudes, a number or an array.
    """
    return terms * EPSILON * np.asarray(magnitude, np.float64)


def probability_room(terms: float, logits: Any) -> Any:
    """The same for a probability, through its logit: the sigmoid's slope is at most 1/4.

    Args:
        terms: Length of the longest chain of additions to the logit.
        logits: The logits, or the largest of them; the sigmoid itself adds a few roundings.
    """
    return room(terms, np.abs(logits)) / 4 + 4 * EPSILON


def assert_close(
    found: Any, expected: Any, *, terms: float, magnitude: Any = None, what: str = ""
) -> None:
    """Fails unless two arrays of one shape differ by no more than float32 arithmetic explains.

    Args:
        found: Numbers of any shape.
        expected: Numbers of the same shape, computed in another way; NaN where `found` is NaN.
        terms: See `room`.
        magnitude: Sum of the terms' magnitudes, of a shape that broadcasts; estimated from the
            largest value of `expected` when absent, see above.
        what: Told in the message.
    """
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape, (what, found.shape, expected.shape)
    if magnitude is None:
        finite = np.abs(expected[np.isfinite(expected)])
        bound = room(4 * np.sqrt(terms), finite.max(initial=0.0))
    else:
        bound = room(terms, magnitude)
    allowed = np.broadcast_to(bound, found.shape)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        difference = np.abs(found - expected)
    # also false where one of them is not finite and the other is another number
    same = (difference <= allowed) | (found == expected) | (np.isnan(found) & np.isnan(expected))
    if not same.all():
        place = np.unravel_index(np.argmax(np.where(same, -1.0, difference - allowed)), found.shape)
        raise AssertionError(
            f"{what or 'values'}: {(~same).sum()} of {same.size} differ, most at {place}: found "
            f"{found[place]:.9g}, expected {expected[place]:.9g}, allowed +- {allowed[place]:.3g}"
        )
