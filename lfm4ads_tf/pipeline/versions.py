"""The versions of a run: its own folder is the first, refreshed ones lie below `versions/`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lfm4ads_tf.files import write_json
from lfm4ads_tf.pipeline.run import Run

_FILE = "versions.json"
_FOLDER = "versions"


def version_folder(out: Path, number: int) -> Path:
    """Run folder of a version."""
    return out if number == 1 else out / _FOLDER / str(number)


def unfinished_folder(out: Path, number: int) -> Path:
    """Where a version is made before it is renamed to its own folder."""
    return out / _FOLDER / f".{number}.unfinished"


def listed_versions(run: Run) -> list[dict[str, Any]]:
    """One entry per version, oldest first; see docs/refresh.md.

    A version is there when its folder is: an entry that a kill prevented is made up for.

    Args:
        run: The run of the first version.
    """
    path = run.out / _FILE
    versions: list[dict[str, Any]] = []
    if path.exists():
        versions = json.loads(path.read_text("utf-8"))["versions"]
    known = {entry["version"] for entry in versions}
    if 1 not in known:
        versions.append(_entry(run.cache.manifest, 1))
    for manifest in (run.out / _FOLDER).glob("[0-9]*/data/manifest.json"):
        number = int(manifest.parent.parent.name)
        if number not in known:
            versions.append(_entry(json.loads(manifest.read_text("utf-8")), number))
    here = [e for e in versions if version_folder(run.out, e["version"]).exists()]
    return sorted(here, key=lambda entry: entry["version"])


def write_versions(run: Run) -> None:
    """Writes `OUT/versions.json`."""
    write_json(run.out / _FILE, {"versions": listed_versions(run)})


def _entry(manifest: dict[str, Any], number: int) -> dict[str, Any]:
    made = manifest.get("refresh", {})
    periods = manifest["periods"]
    return {
        "version": number,
        "folder": "." if number == 1 else f"{_FOLDER}/{number}",
        "parent": made.get("parent"),
        "new_rows": made.get("new_rows", sum(manifest["rows"].values())),
        "first_period": made.get("first_period", periods[0]),
        "last_period": periods[-1],
        "data": manifest["fingerprint"],
        "input": made.get("input"),
    }
