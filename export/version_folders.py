"""Which folders of a model are its versions."""

from __future__ import annotations

import re
from pathlib import Path


def version_folders(folder: Path, prefix: str = "") -> dict[int, Path]:
    """Versions of a model: the folders whose name is an integer.

    Every other name, such as that of an export that is still being written, is none. A server reads
    `007` as 7 too; where both are there, the plain name is taken.

    Args:
        folder: The model's folder; it need not exist.
        prefix: What stands before the integer.

    Returns:
        Version -> its folder, ascending.
    """
    number = re.compile(re.escape(prefix) + "([0-9]+)")
    try:
        children = sorted(folder.iterdir(), key=lambda child: -len(child.name))
    except OSError:
        return {}
    named = ((number.fullmatch(child.name), child) for child in children)
    return dict(sorted((int(name[1]), c) for name, c in named if name and c.is_dir()))
