"""Arrays in parts that memory has room for in float64."""

from __future__ import annotations

from collections.abc import Iterator

_NUMBERS = 2**22  # of a part: 32 MB, of which some copies are held


def parts(size: int, numbers: int) -> Iterator[slice]:
    """Slices of a dimension, as few as keep each part small: every operation waits for threads.

    Args:
        size: Of the dimension.
        numbers: In the whole array.
    """
    step = max(1, size * _NUMBERS // max(numbers, 1))
    for start in range(0, size, step):
        yield slice(start, start + step)
