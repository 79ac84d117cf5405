"""`blessing.json`: what a verification has proven, and of which files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lfm4ads_tf.errors import ExportRefused
from lfm4ads_tf.files import write_json

BLESSING_FILE = "blessing.json"
"""Inside a version folder."""


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a version folder but the blessing, by its path inside.

    Raises:
        ExportRefused: There is a symbolic link: what it points at can change, and a copy of the
            folder may not hold it.
        OSError: A file cannot be read.
    """
    digests = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise ExportRefused(f"'{name}' is a symbolic link; a version holds its files itself")
        if path.is_file() and name != BLESSING_FILE:
            with path.open("rb") as file:
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def bless(folder: Path, report: Mapping[str, Any], **about: Any) -> dict[str, Any]:
    """Writes the blessing of a version folder.

    Args:
        folder: The version folder.
        report: What `verify_export` gave; its `files` are those that were verified.
        about: What the export is: `model`, `kind`, `source`, and what more is known of it.

    Returns:
        What was written.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    blessing = {**about, "blessed": True, "blessed_at": now, **report}
    write_json(folder / BLESSING_FILE, blessing)
    return blessing


def read_blessing(
    folder: Path, model: str | None = None, *, found: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The blessing of a version folder, checked against its files.

    Args:
        folder: The version folder.
        model: Name of the model that it must be the blessing of; any when absent.
        found: The `file_digests` of the folder, computed when absent.

    Raises:
        ExportRefused: There is none, it says otherwise, it is another model's, or a file has
            changed since.
        OSError: A file cannot be read.
    """
    path = folder / BLESSING_FILE
    if not path.is_file():
        raise ExportRefused(f"there is no {BLESSING_FILE}: it was not verified")
    try:
        blessing = json.loads(path.read_text("utf-8"))
        blessed, files = blessing["blessed"], dict(blessing["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise ExportRefused(f"its {BLESSING_FILE} cannot be read ({error!r})") from error
    if blessed is not True:
        raise ExportRefused(f"its {BLESSING_FILE} does not say that it is blessed")
    if model is not None and blessing.get("model") != model:
        raise ExportRefused(
            f"its {BLESSING_FILE} is that of the model '{blessing.get('model')}', not of '{model}'"
        )
    if found is None:
        found = file_digests(folder)
    for name in sorted(files.keys() | found.keys()):
        if name not in found:
            raise ExportRefused(f"the file '{name}' that was blessed is missing")
        if name not in files:
            raise ExportRefused(f"the file '{name}' was not there when it was blessed")
        if files[name] != found[name]:
            raise ExportRefused(f"the file '{name}' has changed since it was blessed")
    return dict(blessing)
