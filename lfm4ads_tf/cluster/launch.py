"""Which launcher a process belongs to."""

from __future__ import annotations

import os

LAUNCH = "LFM4ADS_LAUNCH"
"""Variable that is alike in all processes that one launcher starts, and in those it restarts."""


def launch() -> str | None:
    """The launch that this process belongs to; None where no launcher started it."""
    return os.environ.get(LAUNCH)
