"""Threads of the processes of a cluster."""

from __future__ import annotations

import os
from collections.abc import Mapping

LEAST_INTER_OP = 4
"""With fewer threads between ops, closures that wait for each other may wait for ever."""
_INTER_OP = "TF_NUM_INTEROP_THREADS"
_INSIDE = ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS")


def inter_op_threads(environment: Mapping[str, str] = os.environ) -> int:
    """Threads between ops: what TF_NUM_INTEROP_THREADS says, else the cores; at least 4."""
    given = environment.get(_INTER_OP, "")
    return max(LEAST_INTER_OP, int(given) if given.isdecimal() else _cores())


def shared_threads(processes: int, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Variables that give each of several processes of this machine its part of the cores.

    Args:
        processes: How many there are.
        environment: Variables that are set go on as they are.

    Returns:
        Variable -> number of threads, each at least 1, between ops at least 4.
    """
    part = str(max(1, _cores() // processes))
    own = {name: environment.get(name) or part for name in (*_INSIDE, _INTER_OP)}
    return {**own, _INTER_OP: str(inter_op_threads(own))}


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
