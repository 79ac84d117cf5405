"""What a run folder holds."""

from __future__ import annotations

from pathlib import Path

_KNOWN = (
    ("metrics.json", "all results and comparisons"),
    ("config.yaml", "resolved feature spec and configuration"),
    ("log.txt", "log of all stages"),
    ("data", "encoded data"),
    ("upstream/*", "upstream: weights, snapshots, predictions, results"),
    ("representations/*", "stored UR, IR and CR"),
    ("downstream/*", "downstream models of a scenario, one folder per method and seed"),
    ("retrieval/*", "retrieval models of a scenario, one folder per method and seed"),
    ("exports.json", "what became of each export"),
    ("exports/*/*", "SavedModel, verified in a separate process"),
    ("tensorboard", "training logs for TensorBoard"),
)


def artefacts(out: Path) -> list[tuple[str, str, int]]:
    """The artefacts of a run folder, in the order of the stages.

    Args:
        out: The run folder.

    Returns:
        Path relative to `out` (folders end in `/`), what it is, bytes with everything below.
    """
    found = []
    for pattern, what in _KNOWN:
        for path in sorted(out.glob(pattern)):
            if path.name.startswith("."):
                continue
            name = path.relative_to(out).as_posix() + ("/" if path.is_dir() else "")
            found.append((name, what, _bytes(path)))
    return found


def _bytes(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
