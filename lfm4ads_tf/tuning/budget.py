"""Durations as people write them."""

from __future__ import annotations

import re

from lfm4ads_tf.errors import UserError

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_FORM = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")


def seconds(text: str, what: str = "budget") -> float:
    """Seconds of a duration such as `90s`, `5m`, `1h30m`, or a bare number of seconds.

    Args:
        text: The duration.
        what: What it is, in the message.

    Raises:
        UserError: It is none, or not above zero.
    """
    stripped = text.strip()
    match = _FORM.fullmatch(stripped)
    if re.fullmatch(r"\d+(\.\d+)?", stripped):
        value = float(stripped)
    elif stripped and match is not None:
        parts = zip(match.groups(), ("h", "m", "s"), strict=True)
        value = sum(float(number) * _UNITS[unit] for number, unit in parts if number is not None)
    else:
        value = 0.0
    if value <= 0:
        raise UserError(
            f"The {what} is no duration above zero.",
            received=text,
            fix="write it as 90s, 5m or 1h30m",
        )
    return value
