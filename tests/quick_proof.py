"""A cheap proof of exports, for tests of what is done with an export.

The proof that users get starts a Python process, which imports TensorFlow, and a C++ loader, and
times many calls: some four seconds of a processor for each export. Here the same checks
(`export/verify_child.py`) run in the tests' process, and C++ is skipped. Tests of the proof
itself, one export of each session fixture, and the slow runs keep the real one. The real proofs
of fixtures share one verifying process, which forks for each export: TensorFlow is imported once.
"""

from __future__ import annotations

import atexit
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from lfm4ads_tf.errors import ExportRefused
from lfm4ads_tf.export import verify, verify_child
from lfm4ads_tf.export.clean_process import CleanProcess


@cache
def shared_process() -> CleanProcess:
    """The process of all real proofs inside `quick_proof`; it ends with the tests."""
    process = verify.verifying_process()
    atexit.register(process.close)
    return process


@contextmanager
def quick_proof(but: Collection[str] = ()) -> Iterator[None]:
    """Exports inside the context are proven in this process.

    Args:
        but: Names of the models that are proven as users' exports are.
    """
    real_process, real_cpp = verify._in_clean_process, verify._in_cpp

    def in_process(
        folder: Path, warmup: list[dict[str, Any]], process: CleanProcess | None = None
    ) -> dict[str, Any]:
        if folder.parent.name in but:
            return real_process(folder, warmup, shared_process())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(verify_child, "LATENCY_CALLS", 1)
            try:
                return verify_child.verify(folder, warmup)
            except verify_child.Refused as refused:
                raise ExportRefused(str(refused)) from refused

    def in_cpp(folder: Path) -> dict[str, Any]:
        if folder.parent.name in but:
            return real_cpp(folder)
        return {"cpp_loader": None, "cpp_loader_skipped": "a quick proof, in tests"}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "_in_clean_process", in_process)
        patch.setattr(verify, "_in_cpp", in_cpp)
        patch.setattr(CleanProcess, "start", lambda self: None)  # a real proof starts what it needs
        yield
