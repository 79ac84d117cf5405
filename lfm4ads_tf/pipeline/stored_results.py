"""What a finished training left behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = "results.json"
"""Name of the file that marks a training as finished."""


def stored_results(path: Path) -> dict[str, Any]:
    """Reads a `results.json`."""
    results: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return results
