"""Files and folders that appear under their name only when they are complete."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from lfm4ads_tf.data.datasets.staging import remove_leftovers, staged_folder
from lfm4ads_tf.errors import UserError

__all__ = ["staged_file", "staged_folder", "write_arrays", "write_json", "write_text"]


@contextmanager
def staged_file(target: Path) -> Iterator[Path]:
    """Gives a path beside `target`, and renames it to `target` when the block succeeds.

    Raises:
        UserError: The place cannot be written.
    """
    staging = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target)
        yield staging
        os.replace(staging, target)
    except OSError as error:
        raise UserError(
            f"The file '{target}' cannot be written.",
            received=error.strerror or error,
            fix="check permissions and free space, or choose another output folder",
        ) from error
    finally:
        with suppress(OSError):
            staging.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file, see `staged_file`."""
    with staged_file(path) as staging:
        staging.write_text(text, encoding="utf-8")


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes named arrays as an npz file, see `staged_file`."""
    with staged_file(path) as staging, staging.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def write_json(path: Path, value: Any) -> None:
    """Writes JSON, see `write_text`. NaN is refused: an undefined number is null."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")
