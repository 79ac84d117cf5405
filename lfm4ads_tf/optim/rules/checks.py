"""Checks of the numbers that a rule is made from."""

from __future__ import annotations

import math

import numpy as np

from lfm4ads_tf.errors import UserError


def require_number(
    rule: str,
    option: str,
    value: object,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> float:
    """Refuses what is not a finite number within bounds once it is rounded to float32.

    Args:
        rule: Name of the rule, for the message.
        option: Name of the option, for the message.
        value: What was given.
        above: Exclusive lower bound.
        at_least: Inclusive lower bound.
        at_most: Inclusive upper bound.
        below: Exclusive upper bound.

    Returns:
        The number as the kernels see it.

    Raises:
        UserError: `value` is no int or float, not finite, or out of bounds as float32.
    """
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(
        value, bool
    )
    rounded = _float32(value) if number else math.nan
    if (
        math.isfinite(rounded)
        and (above is None or rounded > above)
        and (at_least is None or rounded >= at_least)
        and (at_most is None or rounded <= at_most)
        and (below is None or rounded < below)
    ):
        return rounded
    bounds = {"above": above, "at least": at_least, "at most": at_most, "below": below}
    wanted = " and ".join(f"{word} {x:g}" for word, x in bounds.items() if x is not None)
    raise UserError(
        f"The option '{option}' of the update rule '{rule}' must be a float32 number {wanted}.",
        received=repr(value),
    )


def require_flag(rule: str, option: str, value: object) -> None:
    """Refuses what is not a bool, since the text "false" would count as true.

    Raises:
        UserError: `value` is no bool.
    """
    if not isinstance(value, bool):
        raise UserError(
            f"The option '{option}' of the update rule '{rule}' must be true or false.",
            received=repr(value),
        )


def _float32(value: object) -> float:
    with np.errstate(over="ignore", under="ignore"):
        rounded = float(np.float32(value))  # type: ignore[arg-type]
    # TensorFlow's threads take subnormal numbers as zero
    return 0.0 if abs(rounded) < np.finfo(np.float32).tiny else rounded
