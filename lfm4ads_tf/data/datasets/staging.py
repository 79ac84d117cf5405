"""Folders that appear under their name only when they are complete."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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
        raise _unwritable(target, error) from error
    try:
        yield staging
        staging.chmod(0o755)  # mkdtemp makes folders that only their owner can enter
        if target.exists():
            shutil.rmtree(target)
        os.replace(staging, target)
    except OSError as error:
        raise _unwritable(target, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def remove_leftovers(target: Path) -> None:
    """Removes what killed processes have staged for `target`; running ones keep theirs."""
    for leftover in target.parent.glob(f".{target.name}.*"):
        owner = leftover.name.removeprefix(f".{target.name}.").partition(".")[0]
        if owner.isdigit() and not _is_running(int(owner)):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _unwritable(target: Path, error: OSError) -> UserError:
    return UserError(
        f"Folder '{target}' cannot be written.",
        received=error.strerror or error,
        fix="check permissions and free space, or choose another output folder.",
    )
