"""Files and folders that appear under their name only when they are complete."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from lfm4ads_tf.errors import UserError


@contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """Gives an empty folder beside `target`, and renames it to `target` when the block succeeds.

    An older `target` is replaced; a failed block leaves nothing behind.

    Args:
        target: The folder to make.

    Raises:
        UserError: The place cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target)
        staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.{os.getpid()}."))
    except OSError as error:
        raise unwritable(target, error) from error
    try:
        yield staging
        staging.chmod(0o755)  # mkdtemp makes folders that only their owner can enter
        if target.exists():
            shutil.rmtree(target)
        os.replace(staging, target)
    except OSError as error:
        raise unwritable(target, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def remove_leftovers(target: Path) -> None:
    """Removes what killed processes have staged for `target`; running ones keep theirs."""
    for leftover in target.parent.glob(f".{target.name}.*"):
        owner = leftover.name.removeprefix(f".{target.name}.").partition(".")[0]
        if owner.isdigit() and not is_running(int(owner)):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def is_running(process: int) -> bool:
    """Whether a process of this number lives."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


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
        raise unwritable(target, error) from error
    finally:
        with suppress(OSError):
            staging.unlink(missing_ok=True)


def unwritable(target: Path, error: Exception) -> UserError:
    """The error of a file or folder that cannot be written."""
    return UserError(
        f"'{target}' cannot be written.",
        received=getattr(error, "strerror", None) or error,
        fix="check permissions and free space, or choose another output folder",
    )


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
