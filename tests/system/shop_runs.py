"""What the session fixtures of `conftest.py` describe: the shop's files, outcomes and runs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """What one command did: exit code, standard output, standard error and log lines."""

    code: int
    out: str
    err: str
    log: str

    @property
    def text(self) -> str:
        """All that a user saw."""
        return f"{self.out}\n{self.err}\n{self.log}"


@dataclass(frozen=True)
class Shop:
    """The worked example's files."""

    folder: Path
    spec: Path


@dataclass(frozen=True)
class Refreshed:
    """A run of five days with its second version.

    Attributes:
        out: The run folder.
        days: Day -> folder with the day's `shop.csv`.
        options: Options of the run's stages, without `--out`.
        before: Digest of every file of the first version before the refresh.
        data: Folder of the first days.
    """

    out: Path
    days: dict[int, Path]
    options: list[str]
    before: dict[str, str]
    data: Path

    @staticmethod
    def digests(out: Path) -> dict[str, str]:
        """Digest of every file of a first version."""
        skipped = ("versions", "versions.json", "log.txt", "config.yaml", "tensorboard")
        found = {}
        for path in sorted(out.rglob("*")):
            name = path.relative_to(out)
            if path.is_file() and name.parts[0] not in skipped:
                found[str(name)] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found
