"""The comparison of extraction with inference, on a run of a tiny generated log."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.extraction import measure


@pytest.mark.slow
def test_extraction_is_compared_with_inference_over_the_same_rows(synthetic_run: Path) -> None:
    found = measure(synthetic_run, rounds=2)
    assert found["rows"] == 3000
    assert "CR_user@towers" in found["layers"] and found["width"] > len(found["layers"])
    rates = found["examples_per_s"]
    assert found["ratio"] == pytest.approx(rates["extraction"] / rates["inference"])
    few = measure(synthetic_run, rounds=1, layers=["fm"])
    assert few["layers"] == ["CR_user@fm"] and few["width"] == 8
