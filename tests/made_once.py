"""What several processes of one test session use and do not change is made by the first of them.

Session fixtures belong to one process; `make test` has several, each of which would train the same
run. What is made lies in a folder of the session, and its description is pickled beside it.
"""

from __future__ import annotations

import fcntl
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], T]) -> T:
    """What `make` gave for an empty folder, by whichever process of the session came first.

    Args:
        factory: The session's folders.
        name: Of the folder; one thing is made under it.
        make: Folder -> what describes the made things; pickled, so that other processes get it.
    """
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # all processes' own folders lie in it
    folder, described = base / name, base / f"{name}.pickle"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not described.exists():
            folder.mkdir()
            made = make(folder)
            described.write_bytes(pickle.dumps(made))
            return made
        found: T = pickle.loads(described.read_bytes())
        return found
