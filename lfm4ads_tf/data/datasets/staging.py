"""The user's data folder, and what a folder of prepared tables was made from."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from lfm4ads_tf.errors import UserError


def check_data_dir(data_dir: Path) -> Path:
    """Returns `data_dir`, checked to exist and to be readable.

    Raises:
        UserError: It does not exist or cannot be read.
    """
    if not data_dir.exists():
        raise UserError(
            f"The data folder '{data_dir}' does not exist.",
            received=f"--data-dir {data_dir}",
            fix="correct --data-dir, or leave it out to download the data.",
        )
    if not os.access(data_dir, os.R_OK):
        raise UserError(
            f"The data folder '{data_dir}' cannot be read.",
            received=f"--data-dir {data_dir}",
            fix="check its permissions.",
        )
    return data_dir


_MANIFEST = "source.json"


def made_from(folder: Path, tables: Sequence[str], layout: int) -> str | None:
    """Returns what a complete folder of prepared tables was made from, or None.

    Args:
        folder: The folder.
        tables: The files that it must hold.
        layout: The layout that the tables must have; raised whenever a data set's tables change,
            so that older caches are not reused.
    """
    if not all((folder / name).is_file() for name in (*tables, _MANIFEST)):
        return None
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
    except ValueError:
        return None
    if not isinstance(manifest, dict) or manifest.get("layout") != layout:
        return None
    return str(manifest.get("source"))


def note_source(folder: Path, source: str, layout: int) -> None:
    """Notes for `made_from` what the tables in a folder were made from."""
    (folder / _MANIFEST).write_text(json.dumps({"layout": layout, "source": source}) + "\n")
