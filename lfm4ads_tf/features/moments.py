"""Dates and times in ISO 8601 and as seconds since 1970; what has no zone is UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
MOMENTS = tuple(
    (datetime(*day, tzinfo=UTC) - _EPOCH) // _MICROSECOND for day in ((1, 1, 1), (9999, 12, 31))
)
"""First and last microsecond, since 1970 in UTC, that is accepted."""


def microseconds_of(text: str) -> int | None:
    """Microseconds since 1970 in UTC, None if a text is no date or time in ISO 8601.

    What is finer than a microsecond is cut off.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    found = (moment - _EPOCH) // _MICROSECOND
    return found if MOMENTS[0] <= found <= MOMENTS[1] else None


def moment_of(text: str) -> float | None:
    """Seconds since 1970 in UTC of a date or time in ISO 8601, None if it is none.

    They are the double nearest to the microseconds, as of every other way to write a time.
    """
    found = microseconds_of(text)
    return None if found is None else found / 1e6


def moment_text(seconds: float) -> str:
    """A moment in ISO 8601: a date at midnight in UTC, else a time that ends in `Z`."""
    moment = _EPOCH + timedelta(microseconds=round(seconds * 1e6))
    if moment.time() == _EPOCH.time():
        return moment.date().isoformat()
    return moment.replace(tzinfo=None).isoformat() + "Z"
