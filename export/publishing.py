"""Puts version folders into service and takes them out, by one rename each.

A server looks at folders whose name is an integer. Everything else in a model's folder is hidden
from it: `.staging-<version>-<host>-<process>` is being written,
`.deleted-<version>-<host>-<process>` is being deleted, `rolled-back-<version>` was taken out of
service and is kept.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from lfm4ads_tf.errors import ExportRefused, UserError
from lfm4ads_tf.export.blessing import read_blessing
from lfm4ads_tf.export.version_folders import version_folders
from lfm4ads_tf.files import is_running

_LOG = logging.getLogger(__name__)
ROLLED_BACK = "rolled-back-"
_HIDDEN = (".staging-", ".deleted-")
_OWNED = re.compile(r"\.[a-z]+-[^-]+(?:-(?P<host>.+))?-(?P<process>[0-9]+)")
_ABANDONED_S = 24 * 3600
"""Age from which what another host has left counts as abandoned: its processes cannot be seen."""


def versions(folder: Path) -> list[int]:
    """Versions in service, ascending."""
    return list(version_folders(folder))


def rolled_back_versions(folder: Path) -> list[int]:
    """Versions that were taken out of service and are kept, ascending."""
    return list(version_folders(folder, ROLLED_BACK))


def next_version(folder: Path) -> int:
    """One above every version that is or was in service."""
    return max([*versions(folder), *rolled_back_versions(folder)], default=0) + 1


def newest_version(folder: Path) -> Path | None:
    """Folder of the newest version that is or was in service, None if there is none."""
    held = version_folders(folder) | version_folders(folder, ROLLED_BACK)
    return held[max(held)] if held else None


def new_staging(folder: Path, version: int | None = None) -> Path:
    """Makes the folder in which a version is written, and removes what killed exports left.

    Args:
        folder: The model's folder, which is made when absent.
        version: The version it is meant for; the next one when absent.
    """
    clear_leftovers(folder)
    staging = folder / _hidden("staging", version or next_version(folder))
    staging.mkdir(parents=True)
    return staging


def clear_leftovers(folder: Path) -> None:
    """Removes what killed processes have left behind; running ones keep theirs.

    Whether a process of another host runs cannot be told: what it has left is removed a day after
    its last change.
    """
    for leftover in folder.glob(".*"):
        if leftover.name.startswith(_HIDDEN) and not _in_use(leftover):
            shutil.rmtree(leftover, ignore_errors=True)


def _hidden(what: str, version: int) -> str:
    """Name of a folder that this process works on."""
    return f".{what}-{version}-{socket.gethostname()}-{os.getpid()}"


def _in_use(leftover: Path) -> bool:
    owned = _OWNED.fullmatch(leftover.name)
    if owned and owned["host"] in (None, socket.gethostname()):
        return is_running(int(owned["process"]))
    try:
        changed = leftover.stat().st_ctime  # a rename changes it too
    except OSError:
        return False  # its owner has just removed it
    return time.time() - changed < _ABANDONED_S


def publish(
    staging: Path, folder: Path, version: int | None = None, keep: int | None = None
) -> Path:
    """Puts a blessed staging folder into service.

    Its files are on disk before the rename, so a crash of the machine leaves a whole version or
    none.

    Args:
        staging: What was written and blessed, on the disk of `folder`.
        folder: The model's folder.
        version: The version, higher than all that are or were in service; the next one when
            absent.
        keep: How many versions stay in service, at least 1; older ones are deleted, those that
            were rolled back too. All when absent.

    Returns:
        The version folder.

    Raises:
        ExportRefused: There is no blessing, or it is not that of this model and these files.
        UserError: The version cannot be used, or `keep` is below 1.
    """
    if keep is not None and keep < 1:
        raise UserError("At least one version must be kept.", received=keep)
    read_blessing(staging, _model(folder))
    _sync(staging)
    with _locked(folder):
        lowest = next_version(folder)
        if version is not None and version < lowest:
            known = [*versions(folder), *rolled_back_versions(folder)]
            raise UserError(
                f"Version {version} of '{folder.name}' exists already."
                if version in known
                else f"Version {version} of '{folder.name}' comes too late: a server would not "
                f"take it for the latest.",
                received=f"versions up to {lowest - 1}",
                fix="leave the version out",
            )
        target = folder / str(version or lowest)
        os.rename(staging, target)
        _sync_folder(folder)
        if keep is not None:
            _keep_newest(folder, keep)
    return target


def roll_back(folder: Path, to: int | None = None) -> list[int]:
    """Takes the versions above one out of service, so that a server goes back to it.

    Lower versions go first: a server that takes the latest one changes once. They are kept as
    `rolled-back-<version>`.

    Args:
        folder: The model's folder.
        to: The version to go back to; the one before the newest when absent.

    Returns:
        The versions that were taken out of service.

    Raises:
        ExportRefused: There is no version to go back to, or it has no blessing that fits.
        UserError: That version is not there.
    """
    with _locked(folder):
        in_service = version_folders(folder)
        if to is None:
            if len(in_service) < 2:
                held = f"version {min(in_service)} alone" if in_service else "no version"
                raise ExportRefused(f"nothing would be left to serve: there is {held}")
            to = sorted(in_service)[-2]
        if to not in in_service:
            held = ", ".join(map(str, in_service)) or "none"
            raise UserError(
                f"There is no version {to} of '{folder.name}' in service.",
                received=f"versions {held}",
                fix="name one of them, or put it back with --restore",
            )
        _checked(in_service[to], to)
        above = [version for version in in_service if version > to]
        for version in above:
            os.rename(in_service[version], folder / f"{ROLLED_BACK}{version}")
        _sync_folder(folder)
    return above


def restore(folder: Path, version: int) -> Path:
    """Puts a version back that was rolled back.

    Args:
        folder: The model's folder.
        version: The version.

    Returns:
        The version folder.

    Raises:
        ExportRefused: It has no blessing that fits its files.
        UserError: It was not rolled back.
    """
    with _locked(folder):
        held = version_folders(folder, ROLLED_BACK)
        if version not in held:
            raise UserError(
                f"Version {version} of '{folder.name}' was not rolled back.",
                received=f"rolled back: {', '.join(map(str, held)) or 'none'}",
                fix="name one that was",
            )
        target = folder / str(version)
        _checked(held[version], version)
        os.rename(held[version], target)
        _sync_folder(folder)
    return target


def _checked(folder: Path, version: int) -> None:
    try:
        read_blessing(folder, _model(folder.parent))
    except ExportRefused as refused:
        raise ExportRefused(f"version {version} cannot be served: {refused}") from refused


def _keep_newest(folder: Path, keep: int) -> None:
    """Deletes what is older than the newest versions; a version disappears by a rename first."""
    oldest = versions(folder)[-keep:][0]
    for prefix in ("", ROLLED_BACK):
        for version, held in version_folders(folder, prefix).items():
            if version >= oldest:
                continue
            hidden = folder / _hidden("deleted", version)
            try:
                os.rename(held, hidden)
                shutil.rmtree(hidden)
            except OSError as error:  # the new version is in service all the same
                _LOG.warning("version %s of %s is not deleted: %s", version, folder.name, error)


def _model(folder: Path) -> str:
    """Name of the model that a folder is, also where the path ends in `..`."""
    return Path(os.path.abspath(folder)).name


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps other processes from publishing or rolling back this model."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    """Brings a folder with all that is in it to disk."""
    for path in folder.rglob("*"):
        if path.is_dir():
            _sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
