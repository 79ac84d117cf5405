"""What a paired difference over seeds says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

LEVEL = 0.05

Verdict = Literal["gain", "loss", "noise", "unknown"]


def verdict(comparison: Mapping[str, Any]) -> Verdict:
    """Judges a comparison of `metrics.json` whose difference is defined.

    Returns:
        `gain` or `loss` when p < 0.05, `noise` when not, `unknown` with a single seed.
    """
    if comparison["p"] is None:
        return "unknown"
    if comparison["p"] >= LEVEL:
        return "noise"
    return "gain" if comparison["diff_mean"] > 0 else "loss"
