"""Where files lie that are compiled on this machine."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

_PACKAGE = Path(__file__).parent


def compiled_file(source: Path, name: str) -> Path:
    """Where a compiled file is, or is to be written.

    In a checkout, which holds `export` as a link, that is `_build` beside the source. The folder of
    an installed package is the installer's alone: what it did not write outlives the package, and
    Python would import the folders that remain. So it is the environment's `share/lfm4ads_tf` then.
    Where these cannot be written it is the user's cache folder.

    Args:
        source: The folder of the source, inside the package.
        name: The file's name, which tells all that it depends on.
    """
    checkout = (_PACKAGE / "export").is_symlink()
    ours = source / "_build" if checkout else Path(sysconfig.get_path("data"), "share/lfm4ads_tf")
    there = next(folder for folder in (ours, *ours.parents) if folder.exists())
    if (ours / name).exists() or os.access(there, os.W_OK):
        return ours / name
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lfm4ads_tf" / name
