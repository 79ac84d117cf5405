"""Files and folders that appear under their name only when they are complete."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from lfm4ads_tf.data.datasets.staging import staged_folder
from lfm4ads_tf.errors import UserError

__all__ = ["staged_folder", "write_json", "write_text"]


def write_text(path: Path, text: str) -> None:
    """Writes a text file beside its place and renames it.

    Raises:
        UserError: The place cannot be written.
    """
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staging.write_text(text, encoding="utf-8")
        os.replace(staging, path)
    except OSError as error:
        staging.unlink(missing_ok=True)
        raise UserError(
            f"The file '{path}' cannot be written.",
            received=error.strerror or error,
            fix="check permissions and free space, or choose another output folder",
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Writes JSON, see `write_text`. NaN is refused: an undefined number is null."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")
