"""Stage `report`: one self-contained page."""

from __future__ import annotations

from pathlib import Path

from lfm4ads_tf.pipeline.run import Run


def report(run: Run) -> Path:
    """Writes `OUT/report.html` and returns its path."""
    return run.out / "report.html"
