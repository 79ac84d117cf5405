"""The two errors that reach a user as a message instead of a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend: `train.py` prints it and exits with 2.

    Args:
        what: What is wrong, one sentence.
        received: What was found instead, shown as `Received: ...`.
        fix: How to mend it, shown as `Fix: ...`.

    Example:
        >>> import lfm4ads_tf as lfm
        >>> try:
        ...     lfm.HybridOptimizer(epsilon=0.0)
        ... except lfm.UserError as error:
        ...     print(error)
        The optimizer's epsilon must be positive.
        Received: 0.0
    """

    def __init__(self, what: str, *, received: object = None, fix: str | None = None) -> None:
        lines = [what]
        if received is not None:
            lines.append(f"Received: {received}")
        if fix is not None:
            lines.append(f"Fix: {fix}")
        super().__init__("\n".join(lines))


class ExportRefused(Exception):
    """An export that failed its verification: `train.py` prints it and exits with 3."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns ` Did you mean 'x'?` for the known name closest to `name`, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""
