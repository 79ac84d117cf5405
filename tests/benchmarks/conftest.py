"""A prepared log with a trained upstream, for several comparisons."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.extraction import make_run


@pytest.fixture(scope="session")
def synthetic_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3,000 generated rows; tests only read it."""
    out = tmp_path_factory.mktemp("synthetic") / "run"
    make_run(out, 3000)
    return out
