"""What became of each export of a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lfm4ads_tf.files import write_json
from lfm4ads_tf.pipeline.diagnosis import lost_exports

_FILE = "exports.json"


@dataclass(frozen=True)
class ExportOutcome:
    """What became of one export.

    Attributes:
        model: Name of the export.
        state: `published`: its newest version serves this run's model; `refused`: it failed its
            verification; `failed`: it could not be made. The last two published nothing.
        version: The version in service, None without one.
        reason: Why it was refused or failed.
    """

    model: str
    state: Literal["published", "refused", "failed"]
    version: int | None = None
    reason: str = ""


def write_outcomes(out: Path, outcomes: Sequence[ExportOutcome]) -> None:
    """Keeps the outcomes of a run's last export, in `metrics.json` too where that is written.

    Args:
        out: The run folder.
        outcomes: One per export.
    """
    held = [asdict(outcome) for outcome in outcomes]
    if held == read_outcomes(out):
        return  # a run that does nothing new writes nothing
    write_json(out / _FILE, {"schema": 1, "exports": held})
    metrics = out / "metrics.json"
    if metrics.exists():
        document = json.loads(metrics.read_text("utf-8"))
        others = [w for w in document.get("warnings", []) if w["kind"] != "export_lost"]
        warnings = [*others, *lost_exports(held)]  # the last kind of the list
        write_json(metrics, {**document, "exports": held, "warnings": warnings})


def read_outcomes(out: Path) -> list[dict[str, Any]]:
    """The outcomes as plain values; none before the first export."""
    path = out / _FILE
    if not path.exists():
        return []
    outcomes: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["exports"]
    return outcomes
